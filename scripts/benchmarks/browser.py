"""The page that runs in a browser: seconds to load, to the first mask, and to later ones.

    scripts/bench browser [--page dist/browser] [--rounds 5]

Headless Chromium of this machine, files from this machine. A mask counts from the drop of a photo
to the sentence that says what is in it.
"""

import argparse
import statistics
import sys
from pathlib import Path
from runpy import run_path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SIZES = ((256, 256), (640, 480), (4000, 3000))
WAIT = 120  # seconds
LOADED = """
const done = arguments[0];
const look = () => {
  const [mark] = performance.getEntriesByName("loaded");
  if (mark) done(mark.startTime / 1000); else setTimeout(look, 20);
};
look();
"""
# Blocks of colors with some noise, as a JPEG, dropped on the page.
DROP = """
const [width, height, sharpened, done] = arguments;
const canvas = new OffscreenCanvas(width, height), place = canvas.getContext("2d");
for (let n = 0; n < 4000; n++) {
  place.fillStyle = `hsl(${(n * 47) % 360} 60% ${30 + n % 40}%)`;
  place.fillRect((n * 7919) % width, (n * 104729) % height, width / (1 + n % 60), height / (1 + n % 50));
}
document.querySelector("#refine").checked = sharpened;
canvas.convertToBlob({ type: "image/jpeg", quality: 0.9 }).then((blob) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([blob], "photo.jpg", { type: "image/jpeg" }));
  document.querySelector("#status").replaceChildren();
  const began = performance.now();
  new MutationObserver((_, observer) => {
    if (!document.querySelector("#status p, #problem p")) return;
    observer.disconnect();
    requestAnimationFrame(() => setTimeout(() => done((performance.now() - began) / 1000)));
  }).observe(document.body, { childList: true, subtree: true });
  document.dispatchEvent(new DragEvent("drop", { dataTransfer, cancelable: true }));
});
"""


def measure(driver: Any, address: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round, by what was waited for."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        driver.get("about:blank")
        driver.execute_cdp_cmd("Network.clearBrowserCache", {})
        driver.get(address)
        found.setdefault("load", []).append(driver.execute_async_script(LOADED))
        for width, height in SIZES:
            for sharpened in (True, False):
                sharp = ", sharpened" * sharpened
                for which in ("first", "later", "later", "later"):
                    name = f"{which} mask, {width}x{height}{sharp}"
                    seconds = driver.execute_async_script(DROP, width, height, sharpened)
                    found.setdefault(name, []).append(seconds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench browser", description=__doc__)
    parser.add_argument("--page", type=Path, help="the folder; built unless given")
    parser.add_argument("--rounds", type=int, default=5, help="times that the page is loaded")
    asked = parser.parse_args()
    browsers = run_path(str(ROOT / "tests" / "app" / "browser.py"))
    build = run_path(str(ROOT / "serving" / "browser" / "build.py"))
    with TemporaryDirectory() as folder:
        page, profile = asked.page or Path(folder, "page"), Path(folder, "profile")
        if asked.page is None:
            page.mkdir()
            try:
                build["fetch_runtime"](page)
            except OSError as error:
                sys.exit(str(error))
            build["write_page"](page, None, None)
        with browsers["served"](page) as address, browsers["browser"](profile) as driver:
            driver.set_script_timeout(WAIT)
            browsers["resize"](driver, browsers["WIDE"], 1000)
            found = measure(driver, address, asked.rounds)
    for name, seconds in found.items():
        print(f"{name:36} {statistics.median(seconds):6.3f} s")


if __name__ == "__main__":
    main()
