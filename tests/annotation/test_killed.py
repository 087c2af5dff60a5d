"""Two thousand pictures, twenty of them broken in as many ways, in runs that are killed."""

import gzip
import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from PIL import Image
from small_pictures import picture

from tf_groupvit.annotation.parts import Parts
from tf_groupvit.annotation.records import labels_of
from tf_groupvit.storage import Output

COUNT, PATIENCE = 2000, 300  # seconds: machines that test are busy
# Parts are small, so that there are many moments between them.
PROGRAM = """
from tf_groupvit.annotation import run
run.PART_PICTURES = 100
from tf_groupvit.cli import main
main()
"""


def png_header(width, height):
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def floating_point():
    content = io.BytesIO()
    Image.fromarray(np.ones((32, 32), np.float32)).save(content, "tiff")
    return content.getvalue()


def broken():
    """Twenty files that are no pictures, by what is wrong with them."""
    whole = {kind: picture(1, kind=kind) for kind in ("jpeg", "png", "bmp", "gif", "webp", "tiff")}
    flipped = bytearray(whole["png"])
    flipped[len(flipped) // 2] ^= 0xFF
    return {
        "empty.jpg": b"",
        "text.jpg": b"no picture",
        "page.jpg": b"<!doctype html><title>404</title>",
        "drawing.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "paper.tif": b"%PDF-1.7\n",
        "packed.jpg": gzip.compress(whole["jpeg"]),
        "pointer.jpg": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "film.gif": b"\0\0\0\x18ftypmp42",
        "start.jpg": whole["jpeg"][:2],
        "cut.jpg": whole["jpeg"][: len(whole["jpeg"]) // 2],
        "cut.png": whole["png"][: len(whole["png"]) // 2],
        "cut.bmp": whole["bmp"][: len(whole["bmp"]) // 2],
        "cut.gif": whole["gif"][:20],
        "cut.webp": whole["webp"][: len(whole["webp"]) // 2],
        "cut.tif": whole["tiff"][: len(whole["tiff"]) // 2],
        "damaged.png": bytes(flipped),
        "header.png": png_header(32, 32),
        "bomb.png": png_header(60_000, 60_000),
        "long.png": png_header(2_000_000, 2),
        "float.tif": floating_point(),
    }


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collection") / "photos"
    for number in range(COUNT - 20):
        path = folder / f"{number % 10}" / f"{number}.{'jpg' if number % 2 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = 32 + number % 7, 32 + number % 5
        path.write_bytes(picture(number, size, "jpeg" if number % 2 else "png"))
    for number, (name, content) in enumerate(broken().items()):
        (folder / f"{number % 10}" / name).write_bytes(content)
    return folder


def started(photos, output):
    line = [
        str(photos),
        "--recursive",
        "--classes",
        "apple,star,grass,sky",
        "--output",
        str(output),
    ]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "annotate", *line, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def killed_after(parts, photos, output):
    """Kill a run without a warning once it has written so many parts more."""
    folder = output / "records"
    wanted = parts + (len(list(folder.glob("part-*"))) if folder.exists() else 0)
    with started(photos, output) as process:
        end = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < end:
            if folder.exists() and len(list(folder.glob("part-*"))) >= wanted:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said


@pytest.mark.slow
def test_runs_that_are_killed_twice_give_what_one_run_gives(collection, segmenter, tmp_path):
    output = tmp_path / "labels"
    killed_after(2, collection, output)
    first = {item_id for item_id, _ in Parts(Output(output)).ids()}
    killed_after(4, collection, output)
    second = {item_id for item_id, _ in Parts(Output(output)).ids()}
    assert 200 <= len(first) < len(second) < COUNT and first < second
    assert not (output / "summary.json").exists()
    with started(collection, output) as process:
        out, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, said
    summary = json.loads(out)
    assert (summary["done"], summary["failed"]) == (COUNT - 20, 20)
    assert summary["run"]["pictures"] == COUNT - len(second)

    records = list(Parts(Output(output)).records())
    assert len(records) == len({record.id for record in records}) == COUNT
    ids = {str(path.relative_to(collection)) for path in collection.rglob("*.*")}
    assert {record.id for record in records} == ids
    failed = {os.path.basename(record.id) for record in records if record.error is not None}
    assert failed == broken().keys()
    errors = [json.loads(line) for line in (output / "errors.jsonl").read_text().splitlines()]
    assert {os.path.basename(error["id"]) for error in errors} == failed and len(errors) == 20
    assert all(error["error"] and "\n" not in error["error"] for error in errors)
    assert [path.name for path in output.rglob(".*")] == [".lock"]

    for record in records[:: COUNT // 20]:
        if record.error is None:
            assert (labels_of(record, 4) == segmenter(collection / record.id).labels).all()
