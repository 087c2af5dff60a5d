"""An ``Answering`` and example photos in; the page, as Gradio blocks, out."""

from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from time import time
from typing import Any

import gradio as gr

from tf_groupvit.app.answering import Answering, Choices
from tf_groupvit.app.controls import (
    Examples,
    choice_controls,
    examples_control,
    photo_control,
    result_controls,
    words_control,
)
from tf_groupvit.app.showing import CLASSES, chart, refusal, regions, sentence, view_names
from tf_groupvit.errors import GroupViTError
from tf_groupvit.segmentation.result import Segmentation

HEAD = """# Name the classes, get the mask
Give a photo, type the words that you look for, and see which pixels show them. GroupViT learned this from captions
alone. Point at a region to read what it is."""
HOUR = 3600


@dataclass(frozen=True)
class Page:
    """What answers the page's events."""

    answering: Answering
    folder: Path  # where downloads are put

    def segment(
        self, photo: Any, words: str, templates: str, protocol: str, mode: str, background: float, view: str
    ) -> tuple[Any, ...]:
        """The result, its regions, a sentence, a chart and two files; in place of an error that is ours, its words."""
        try:
            choices = Choices(templates.strip(), protocol, mode, background)
            result = self.answering.segment(photo, words, choices)
            return (result, self.show(result, view), sentence(result), chart(result), *self._downloads(result, photo))
        except GroupViTError as error:
            # The place where the photo lies on this machine says nothing to whoever looks at the page.
            words = str(error).replace(f"{photo}: ", "") if photo else str(error)
            gone = gr.DownloadButton(value=None, interactive=False)
            return None, gr.AnnotatedImage(value=None), refusal(words), "", gone, gone

    def show(self, result: Segmentation | None, view: str) -> Any:
        """The regions of a view of the last result."""
        if result is None:
            return gr.AnnotatedImage(value=None)
        picture, colours = regions(result, view)
        return gr.AnnotatedImage(value=picture, color_map=colours)

    def _downloads(self, result: Segmentation, photo: Any) -> list[Any]:
        stem = Path(photo).stem if isinstance(photo, str) else "photo"
        self._forget()
        place = Path(mkdtemp(dir=self.folder))
        files = [place / f"{stem}.labels.png", place / f"{stem}.json"]
        for file in files:
            result.save(file)
        return [gr.DownloadButton(value=str(file), interactive=True) for file in files]

    def _forget(self) -> None:
        """Delete what was put there over an hour ago."""
        for old in self.folder.iterdir():
            if old.stat().st_mtime < time() - HOUR:
                rmtree(old, ignore_errors=True)


def build_page(answering: Answering, examples: Examples, words: str, folder: Path) -> gr.Blocks:
    """Lay the page out: what goes in on the left, what comes out on the right, one under the other on a phone."""
    page = Page(answering, folder)
    with gr.Blocks(title="GroupViT: words to masks", analytics_enabled=False, delete_cache=(HOUR, HOUR)) as blocks:
        gr.Markdown(HEAD)
        with gr.Row():
            with gr.Column(min_width=300):
                photo, typed = photo_control(), words_control(words)
                choices = choice_controls()
                button = gr.Button("Segment", variant="primary", elem_id="segment")
                examples_control(photo, typed, examples)
            with gr.Column(min_width=300):
                status = gr.HTML(elem_id="status")
                view = gr.Radio(view_names(answering.stages), value=CLASSES, label="View", elem_id="view")
                shown, areas, *downloads = result_controls()
        last = gr.State(time_to_live=HOUR)
        gr.on(
            [button.click, typed.submit],
            page.segment,
            [photo, typed, *choices, view],
            [last, shown, status, areas, *downloads],
            api_name="segment",
        )
        view.change(page.show, [last, view], shown, api_visibility="private")
    return blocks
