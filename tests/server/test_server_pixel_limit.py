"""Pixels of images from their headers, and requests that wait for each other."""

import io
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from test_server_versions import until

from tf_groupvit.server.admission import Deadline
from tf_groupvit.server.pixel_limit import PixelLimit, pixels_in, pixels_of
from tf_groupvit.server.running import Options, Server
from tf_groupvit.server.servable import Servable
from tf_groupvit.server.status import StatusError


def picture(format_: str, size: tuple[int, int], mode: str = "RGB", **options) -> bytes:
    content = io.BytesIO()
    Image.new(mode, size).save(content, format_, **options)
    return content.getvalue()


@pytest.mark.parametrize("size", [(1, 1), (300, 7), (7, 300)])
@pytest.mark.parametrize(
    ("format_", "options"),
    [("PNG", {}), ("PNG", {"mode": "1"}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"mode": "L"}),
     ("JPEG", {"exif": b"Exif\0\0" + bytes(5000), "comment": b"\xff\xc0" * 99}), ("GIF", {"mode": "P"}), ("BMP", {}),
     ("WEBP", {}), ("WEBP", {"lossless": True}), ("WEBP", {"mode": "RGBA", "exif": b"Exif\0\0"})],
)  # fmt: skip
def test_a_header_says_how_many_pixels_there_are(format_, options, size):
    assert pixels_of(picture(format_, size, **options)) == size[0] * size[1]


def test_a_small_file_of_many_pixels_is_seen_without_reading_it():
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 9000, 9000)
    assert pixels_of(png) == 81_000_000
    bmp = b"BM" + bytes(12) + struct.pack("<Iii", 40, 9000, -9000)  # from top to bottom
    assert pixels_of(bmp) == 81_000_000
    old = b"BM" + bytes(12) + struct.pack("<IHH", 12, 900, 800) + bytes(8)
    assert pixels_of(old) == 720_000


@pytest.mark.parametrize("content", [
    b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xc0", b"\xff\xd8\xff\xe0\xff\xff", b"\x89PNG\r\n\x1a\n",
    b"GIF89a", b"BM", b"RIFF\0\0\0\0WEBP", b"RIFF\0\0\0\0WEBPVP8L", b"nonsense" * 10, b"\xff\xd8" + b"\xff" * 10**6,
])  # fmt: skip
def test_what_is_cut_or_no_picture_counts_nothing(content):
    assert pixels_of(content) == 0


def test_a_jpeg_with_its_header_behind_very_many_segments_counts_as_the_largest():
    assert pixels_of(b"\xff\xd8" + b"\xff\x01" * 5000) == 65_535**2
    fill = b"\xff\xd8" + b"\xff" * 5000 + picture("JPEG", (30, 20))[3:]
    assert pixels_of(fill) == 600


def test_pictures_and_arrays_of_pixels_count_and_other_inputs_do_not():
    files = np.array([[picture("PNG", (10, 10))], [picture("JPEG", (20, 10))], [b"a" * 99]], object)
    assert pixels_in([files, np.zeros((2, 5, 4, 3), np.uint8), np.zeros((100, 100))]) == 340


def test_a_large_file_counts_by_its_bytes_whatever_its_header_claims():
    assert pixels_in([np.array([bytes(3 * 2**20)], object)]) == 2**20
    assert pixels_in([np.array([picture("PNG", (10, 10)) + bytes(3 * 2**20)], object)]) > 2**20


def test_requests_wait_while_too_many_pixels_are_at_work_first_come_first_served():
    limit, order, go = PixelLimit(100), [], {name: threading.Event() for name in "abcd"}

    def work(name: str, count: int):
        with limit.hold(count, 10.0) as left:
            order.append(name)
            assert 0 < left <= 10 and go[name].wait(10)

    with ThreadPoolExecutor(4) as pool:
        futures = []
        for name, count in (("a", 60), ("b", 50), ("c", 10), ("d", 1000)):
            futures.append(pool.submit(work, name, count))
            until(lambda: len(order) + limit.waiting == len(futures))
        assert order == ["a"]  # b does not fit, c waits behind it
        go["a"].set()
        until(lambda: order == ["a", "b", "c"])
        go["b"].set()
        go["c"].set()
        until(
            lambda: order == ["a", "b", "c", "d"]
        )  # which is larger than all that may be at work, and is alone
        go["d"].set()
        for future in futures:
            future.result(10)
    assert limit.at_work == 0


def test_waiting_for_pixels_ends_at_the_deadline_and_holds_up_nobody():
    limit = PixelLimit(100)
    with limit.hold(100, None), pytest.raises(StatusError) as refused, limit.hold(100, 0.01):
        pass
    assert refused.value.code == "DEADLINE_EXCEEDED"
    with limit.hold(100, 5.0), limit.hold(0, None):
        pass
    assert limit.at_work == 0 and not limit.waiting


def test_a_servers_requests_take_turns_by_pixels(fixture_base_path, monkeypatch):
    """Two pictures that do not fit at once: never do both run; small ones and other requests run
    beside them.
    """
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 9000, 9000)
    running, most, run = [0], [0], Servable.run
    lock, first = threading.Lock(), threading.Event()

    def counted(self, feeds, fetches, timeout):
        large = any(array.dtype.kind == "O" and png in array for array in feeds.values())
        with lock:
            running[0] += large
            most[0] = max(most[0], running[0])
        if large and not first.is_set():
            first.set()
            until(lambda: server.pixel_limit.waiting == 1)
            assert (
                server.rest("POST", "/v1/models/m:predict", b'{"instances": [1.0]}').status_code
                == 200
            )
        try:
            return run(self, feeds, fetches, timeout)
        finally:
            with lock:
                running[0] -= large

    monkeypatch.setattr(Servable, "run", counted)
    inputs = {"image_bytes": np.array([png], object), "class_names": np.array([b"a"], object)}

    def ask(_):
        from tf_groupvit.server.predict import predict, predict_signature

        with server.models.use_named("m", None, None) as version:
            signature = predict_signature(version.loaded, "segment")
            return predict(version.loaded, signature, inputs.keys(), inputs.__getitem__, (), 10.0)

    server = Server({"m": fixture_base_path}, port=None, rest_api_port=None, options=Options())
    with server, ThreadPoolExecutor(2) as pool:
        for outcome in pool.map(ask, range(2)):
            assert outcome.outputs["length"].tolist() == [len(png)]
    assert most == [1]


def test_a_deadline_counts_waiting():
    limit = PixelLimit(10)
    with limit.hold(5, 100.0) as left:
        assert left is not None and 99 < left <= Deadline(100.0).remaining() + 1
    with limit.hold(5, None) as left:
        assert left is None
