"""Four addresses, one of them dead -> tests/golden/captions: what img2dataset makes of them.

Its three layouts, in two shards each, from a server on this machine. Run with an interpreter that
has img2dataset (1.47):

    python scripts/make_golden/captions.py
"""

import csv
import functools
import http.server
import shutil
import tempfile
import threading
from pathlib import Path

import cv2
import img2dataset
import numpy as np

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "golden" / "captions"
CAPTIONS = ["a red apple", 'one, and "two"', "nobody sees this", "é on a\ttab"]
GREYS = [40, 80, None, 160]
LAYOUTS = ["files", "webdataset", "parquet"]


def serve(folder: Path) -> str:
    """The address of a server of the files in a folder."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        address = serve(work)
        for number, grey in enumerate(GREYS):
            if grey is not None:
                cv2.imwrite(str(work / f"{number}.png"), np.full((12, 16, 3), grey, np.uint8))
        with open(work / "list.csv", "w", newline="") as file:
            rows = [(f"{address}/{k}.png", caption) for k, caption in enumerate(CAPTIONS)]
            csv.writer(file).writerows([("url", "caption"), *rows])
        for layout in LAYOUTS:
            shutil.rmtree(FOLDER / layout, ignore_errors=True)
            img2dataset.download(
                url_list=str(work / "list.csv"),
                input_format="csv",
                caption_col="caption",
                output_format=layout,
                output_folder=str(FOLDER / layout),
                image_size=8,
                encode_format="png",
                encode_quality=9,
                number_sample_per_shard=3,
                thread_count=1,
            )


if __name__ == "__main__":
    main()
