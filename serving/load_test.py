"""Measure a server: requests a second, latencies and failures. Needs nothing but Python.

python serving/load_test.py photo.jpg --server http://localhost:8501 --clients 8 --seconds 20
"""

import argparse
import base64
import json
import statistics
import threading
import time
import urllib.error
import urllib.request


def ask(url: str, body: bytes, end: float, seconds: list[float], failures: list[str]) -> None:
    """Send requests, one after the other, until ``end``."""
    while time.monotonic() < end:
        started = time.monotonic()
        try:
            with urllib.request.urlopen(url, body, timeout=60) as response:
                response.read()
            seconds.append(time.monotonic() - started)
        except (urllib.error.URLError, OSError) as error:
            failures.append(str(error))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("--server", default="http://localhost:8501")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--batch", type=int, default=1, help="images in a request")
    options = parser.parse_args()
    with open(options.image, "rb") as file:
        row = {"image_bytes": {"b64": base64.b64encode(file.read()).decode()}}
    url = f"{options.server}/v1/models/groupvit:predict"
    work = (
        url,
        json.dumps({"instances": [row] * options.batch}).encode(),
        time.monotonic() + options.seconds,
    )
    seconds: list[float] = []
    failures: list[str] = []
    clients = [
        threading.Thread(target=ask, args=(*work, seconds, failures))
        for _ in range(options.clients)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    print(
        f"{len(seconds) * options.batch / options.seconds:.1f} images a second, {len(failures)}"
        " requests failed"
    )
    if len(seconds) > 1:
        half, *_ = statistics.quantiles(seconds, n=2)
        print(
            f"latency: median {1000 * half:.0f} ms, 95%"
            f" {1000 * statistics.quantiles(seconds, n=20)[-1]:.0f} ms"
        )
    if failures:
        print(f"first failure: {failures[0]}")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
