"""A Chromium and its driver, if this machine has them, driven by Selenium; and pages: in a process
of their own, or files.
"""

import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "headless=new",
    "no-sandbox",  # containers have none
    "disable-gpu",
    "disable-dev-shm-usage",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "use-fake-device-for-media-stream",  # a camera that shows a test picture
    "use-fake-ui-for-media-stream",  # and nobody has to allow it
    "lang=en",
)
WIDE, PHONE = 1200, 390
START = 300  # seconds: after them a page that does not start is given up


def find_browser() -> tuple[str, str]:
    """Paths of browser and driver; skips, with what to install, where there are none."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    driver = shutil.which("chromedriver")
    if not (program and driver):
        pytest.skip(
            "there is no Chromium with its driver here (Debian: apt-get install chromium"
            " chromium-driver)"
        )
    pytest.importorskip(
        "selenium", reason="Selenium is not installed: pip install 'tf-groupvit[test]'"
    )
    return program, driver


@contextmanager
def browser(profile: Path) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    program, driver = find_browser()
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"user-data-dir={profile}"):
        options.add_argument(f"--{flag}")
    running = webdriver.Chrome(options=options, service=Service(driver))
    try:
        running.set_page_load_timeout(60)
        yield running
    finally:
        running.quit()


def resize(driver: Any, width: int, height: int = 1500) -> None:
    """Emulate a screen of that width; a narrow one is a phone's."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@contextmanager
def page_process(command: list[str]) -> Iterator[str]:
    """Run a command that prints where its page is: the address. Ctrl-C ends it, and it must end
    well.
    """
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    said = []
    watchdog = threading.Timer(START, process.kill)
    watchdog.start()
    try:
        for line in process.stdout:
            said.append(line)
            found = re.search(r"http://[\w.:]+/?", line)
            if found:
                break
        else:
            pytest.fail("the page did not start:\n" + "".join(said))
        watchdog.cancel()
        yield found[0]
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == 0, rest
        assert "Traceback" not in "".join(said) + rest
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the files of a folder: the address, with a slash at its end."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
