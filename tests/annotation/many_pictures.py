"""A thousand pictures, twenty of them broken in as many ways, and runs that may be killed."""

import gzip
import io
import os
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
from PIL import Image
from small_pictures import picture

from tf_groupvit.annotation.parts import Parts
from tf_groupvit.storage import Output

COUNT, PATIENCE = 1000, 300  # seconds: machines that test are busy
CLASSES = "apple,star,grass,sky"
# Parts are small, so that there are many moments between them.
PROGRAM = """
from tf_groupvit.annotation import run
run.PART_PICTURES = 50
from tf_groupvit.cli import main
main()
"""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


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


def make_collection(folder):
    """The pictures, in ten folders."""
    for number in range(COUNT - 20):
        path = folder / f"{number % 10}" / f"{number}.{'jpg' if number % 2 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = 32 + number % 7, 32 + number % 5
        path.write_bytes(picture(number, size, "jpeg" if number % 2 else "png"))
    for number, (name, content) in enumerate(broken().items()):
        (folder / f"{number % 10}" / name).write_bytes(content)


def started(photos, output, *choices):
    """The command in a process of its own, where no cluster is given by the environment."""
    line = (photos, "--recursive", "--classes", CLASSES, "--output", output, "--json", *choices)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "annotate", *map(str, line)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | QUIET,
    )


def wait_for_parts(process, output, more):
    """Return once a run has written so many parts more."""
    folder = output / "records"
    wanted = more + len(list(folder.glob("part-*")))
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        if len(list(folder.glob("part-*"))) >= wanted:
            return
        time.sleep(0.01)
    raise AssertionError(process.communicate()[1])


def records_of(output):
    """The records of a folder, by id."""
    return sorted(Parts(Output(output)).records(), key=lambda record: record.id)
