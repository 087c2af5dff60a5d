"""Serving the page. Gradio gets nothing from other machines, and sends nothing to them."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tf_groupvit.errors import InputError, ServerError
from tf_groupvit.server.ports import bound_socket

if TYPE_CHECKING:
    from tf_groupvit.segmentation.segmenter import Segmenter

HERE = Path(__file__).parent
SCRIPTS = sorted(HERE.glob("*.js"))
MISSING = "The page needs Gradio, which is not installed: pip install 'tf-groupvit[demo]'."
# Gradio reads these when it is imported.
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SSR_MODE": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
FONTS = ["system-ui", "sans-serif"]
# Gradio's own colors are too pale; these have a contrast of at least 4.5.
INKS = {
    "button_primary_background_fill": "*primary_700",
    "button_primary_background_fill_hover": "*primary_800",
    "block_info_text_color": "*neutral_600",
    "block_label_text_color": "*neutral_700",
}
LARGEST_FILE = "64mb"


def check_gradio() -> None:
    """Raise ``InputError`` without Gradio; this does not import it, which takes seconds."""
    from importlib.util import find_spec

    if find_spec("gradio") is None:
        raise InputError(MISSING)


def check_port(host: str, port: int) -> int:
    """The port, or a free one for 0. Raises ``ServerError`` if it cannot be listened on."""
    try:
        with bound_socket(host, port) as trial:
            return int(trial.getsockname()[1])
    except OSError as error:
        reason = error.strerror or error
        raise ServerError(
            f"{host}:{port} cannot be listened on ({reason}): choose another --port, or 0 for any."
        ) from error


@contextmanager
def running_page(
    segmenter: "Segmenter", host: str = "127.0.0.1", port: int = 7860, normalize: str | None = None
) -> Iterator[str]:
    """Serve the page inside a ``with``: its address. What is uploaded is deleted at the end.

    Raises:
        InputError: Gradio is not installed, or the segmenter has no tokenizer.
        ServerError: the address cannot be listened on.
    """
    check_gradio()
    port = check_port(host, port)
    with TemporaryDirectory(prefix="groupvit-page-") as folder, _settings(folder):
        import gradio as gr

        from tf_groupvit.app.examples import write_examples
        from tf_groupvit.app.page import build_page
        from tf_groupvit.app.results import PageModel

        places = {name: Path(folder, name) for name in ("examples", "downloads")}
        for place in places.values():
            place.mkdir()
        examples = write_examples(places["examples"])
        words = ", ".join(segmenter.classes.names)
        blocks = build_page(PageModel(segmenter, normalize), examples, words, places["downloads"])
        theme = gr.themes.Default(
            primary_hue="blue", font=FONTS, font_mono=["ui-monospace", "monospace"]
        ).set(**INKS)
        _, address, _ = blocks.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            show_error=False,
            max_file_size=LARGEST_FILE,
            allowed_paths=[folder],
            theme=theme,
            css_paths=HERE / "page.css",
            head="".join(f"<script>{path.read_text('utf-8')}</script>" for path in SCRIPTS),
            footer_links=[],
        )
        try:
            yield address
        finally:
            blocks.close(verbose=False)


@contextmanager
def _settings(folder: str) -> Iterator[None]:
    """Set Gradio's variables while the page runs, but for those that are set already."""
    wanted = {**QUIET, "GRADIO_TEMP_DIR": str(Path(folder, "cache"))}
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def wait_until_stopped() -> None:
    """Return at Ctrl-C, or at SIGTERM where this is the main thread."""
    stopped = threading.Event()
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, lambda *_: stopped.set())
    stopped.wait()
