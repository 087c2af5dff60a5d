"""The page as Gradio blocks: its controls, and what they do with a ``PageModel``."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from time import time
from typing import Any

import gradio as gr

from tf_groupvit.app.results import (
    CLASSES,
    Choices,
    PageModel,
    alert,
    chart,
    comparison,
    regions,
    sentence,
    view_names,
)
from tf_groupvit.errors import GroupViTError
from tf_groupvit.hub import DEMO_WORDS, is_demo
from tf_groupvit.preprocessing.image_reading import read_image
from tf_groupvit.segmentation.result import Segmentation
from tf_groupvit.segmentation.settings import MODES, PROTOCOLS
from tf_groupvit.segmentation.templates import SETS, SIMPLE

Examples = Sequence[tuple[Path, str]]  # photos, and the words to segment each by


def photo_control() -> gr.Image:
    """A photo by upload, camera or clipboard, given as the path of its unchanged file."""
    photo = gr.Image(
        type="filepath",
        sources=["upload", "webcam", "clipboard"],
        label="Photo",
        elem_id="photo",
        height=320,
    )
    # Our own reader turns by EXIF, scales 16 bits, and says what is wrong with a file; Gradio's
    # does not.
    photo.preprocess = lambda payload: None if payload is None else payload.path
    return photo


def examples_control(photo: gr.Image, examples: Examples) -> gr.Dataset:
    """A row of pictures; a click gives the index of the chosen one."""
    samples = [[str(path)] for path, _ in examples]
    return gr.Dataset(
        components=[photo],
        samples=samples,
        type="index",
        label="Example photos",
        elem_id="examples",
    )


def words_control(words: str) -> gr.Textbox:
    """The class names."""
    hint = "Words, separated by commas; sofa|couch are synonyms. Shift+Enter segments."
    return gr.Textbox(words, label="Classes", info=hint, lines=2, max_lines=6, elem_id="classes")


def refine_control() -> gr.Checkbox:
    """Whether masks are sharpened."""
    hint = "Masks follow the edges of the photo instead of the model's patches."
    return gr.Checkbox(True, label="Sharpen masks", info=hint, elem_id="refine")


def choice_controls() -> list[Any]:
    """Template, protocol, mode and background, under a heading that unfolds."""
    with gr.Accordion("Prompt, background, protocol", open=False, elem_id="choices"):
        templates = gr.Dropdown(
            [SIMPLE, *(name for name in SETS if name != "simple")],
            value=SIMPLE,
            allow_custom_value=True,
            label="Prompt template",
            info="A sentence with {} for the class, or a set of them: the more, the steadier.",
            elem_id="templates",
        )
        hint = "A pixel below it is background; 0: no background."
        background = gr.Slider(
            0, 1, 0, step=0.01, label="Background threshold", info=hint, elem_id="background"
        )
        hint = "paper: the published inference; hf: transformers' logits."
        protocol = gr.Radio(
            PROTOCOLS, value=PROTOCOLS[0], label="Protocol", info=hint, elem_id="protocol"
        )
        hint = "whole: the photo as one square; window: windows over it."
        mode = gr.Radio(MODES, value=MODES[0], label="Mode", info=hint, elem_id="mode")
    return [templates, protocol, mode, background]


def result_controls() -> list[Any]:
    """Regions, areas, masks before and after they were sharpened, and the two downloads."""
    shown = gr.AnnotatedImage(label="Regions", elem_id="regions")
    areas = gr.HTML(elem_id="areas")
    compared = gr.HTML(elem_id="compared")
    with gr.Row():
        mask = gr.DownloadButton("Mask (PNG)", interactive=False, elem_id="mask")
        numbers = gr.DownloadButton("Numbers (JSON)", interactive=False, elem_id="json")
    return [shown, areas, compared, mask, numbers]


HEAD = """# Name the classes, get the mask
Give a photo, type the words that you look for, and see which pixels show them. GroupViT learned
this from captions alone. Point at a region to read what it is."""
HOUR = 3600
RESULTS = 7  # outputs of a result: itself, regions, sentence, chart, comparison, two downloads
# On a phone the result lies below the form; its place is known once its picture is loaded.
TO_THE_RESULT = """() => {
  if (document.querySelector("#problem [role=alert]") || window.innerWidth >= 700) return;
  const picture = document.querySelector("#regions img");
  const status = document.getElementById("status");
  const show = () => status.scrollIntoView({ behavior: "smooth", block: "start" });
  if (!picture || picture.complete) setTimeout(show, 100);
  else picture.addEventListener("load", show, { once: true });
}"""


@dataclass(frozen=True)
class Page:
    """What the controls of the page call."""

    model: PageModel
    folder: Path  # where downloads are put

    def segment(
        self,
        last: Segmentation | None,
        photo: str | None,
        words: str,
        templates: str,
        protocol: str,
        mode: str,
        background: float,
        refine: bool,
        view: str,
    ) -> tuple[Any, ...]:
        """The values of all outputs. After an error of ours the last result stays."""
        try:
            choices = Choices(templates.strip(), protocol, mode, background)
            pixels = None if photo is None else read_image(photo)
            before = result = self.model.segment(pixels, words, choices)
            if refine:
                choices = replace(choices, refine=self.model.refine)
                result = self.model.segment(pixels, words, choices)
        except GroupViTError as error:
            stays = " The result shown is still the previous one." if last else ""
            return *[gr.skip()] * RESULTS, alert(_without_place(error, photo) + stays)
        compared = comparison(before, result) if refine else ""
        told = sentence(result), chart(result), compared
        return result, self.show(result, view), *told, *self._downloads(result, photo), ""

    def photo_changed(self, photo: str | None) -> tuple[Any, ...]:
        """Clear the result of the photo before; an unreadable file gives an error."""
        try:
            if photo is not None:
                read_image(photo)
        except GroupViTError as error:
            return *self.cleared(), alert(_without_place(error, photo))
        return *self.cleared(), ""

    def cleared(self) -> tuple[Any, ...]:
        """The outputs of a result, empty."""
        gone = gr.DownloadButton(value=None, interactive=False)
        return None, gr.AnnotatedImage(value=None), "", "", "", gone, gone

    def show(self, result: Segmentation | None, view: str) -> gr.AnnotatedImage:
        """The regions of a view of the last result."""
        if result is None:
            return gr.AnnotatedImage(value=None)
        picture, colors = regions(result, view)
        return gr.AnnotatedImage(value=picture, color_map=colors)

    def _downloads(self, result: Segmentation, photo: str | None) -> list[gr.DownloadButton]:
        stem = Path(photo).stem if photo else "photo"
        for old in self.folder.iterdir():
            if old.stat().st_mtime < time() - HOUR:
                rmtree(old, ignore_errors=True)
        place = Path(mkdtemp(dir=self.folder))
        files = [place / f"{stem}.labels.png", place / f"{stem}.json"]
        for file in files:
            result.save(file)
        return [gr.DownloadButton(value=str(file), interactive=True) for file in files]


def _without_place(error: GroupViTError, photo: str | None) -> str:
    """The text of an error without the folder that the photo was uploaded to."""
    words = str(error).replace(f"{photo}: ", "") if photo else str(error)
    return words[:1].upper() + words[1:]


def build_page(model: PageModel, examples: Examples, words: str, folder: Path) -> gr.Blocks:
    """The page: the form on the left, the result on the right; below each other on a phone."""
    page = Page(model, folder)
    with gr.Blocks(
        title="GroupViT: words to masks", analytics_enabled=False, delete_cache=(HOUR, HOUR)
    ) as blocks:
        gr.Markdown(HEAD)
        if is_demo(model.base.source):
            gr.Markdown(f"**{DEMO_WORDS}**", elem_id="demo")
        with gr.Row():
            with gr.Column(min_width=300):
                photo, typed = photo_control(), words_control(words)
                refine = refine_control()
                choices = [*choice_controls(), refine]
                button = gr.Button("Segment", variant="primary", elem_id="segment")
                problem = gr.HTML(elem_id="problem")
                row = examples_control(photo, examples)
            with gr.Column(min_width=300):
                status = gr.HTML(elem_id="status")
                view = gr.Radio(
                    view_names(model.stages), value=CLASSES, label="View", elem_id="view"
                )
                shown, areas, *downloads = result_controls()
        last = gr.State(time_to_live=HOUR)
        outputs = [last, shown, status, areas, *downloads, problem]
        # One at a time and in order: a photo is checked, and the old result cleared, before it is
        # segmented.
        in_order: dict[str, Any] = dict(concurrency_id="photo", concurrency_limit=1)
        quiet: dict[str, Any] = dict(api_visibility="private", show_progress="hidden")
        photo.change(page.photo_changed, photo, outputs, **quiet, **in_order)
        row.click(
            lambda index: (str(examples[index][0]), examples[index][1], *page.cleared(), ""),
            row,
            [photo, typed, *outputs],
            **quiet,
        )
        gr.on(
            [button.click, typed.submit],
            page.segment,
            [last, photo, typed, *choices, view],
            outputs,
            api_name="segment",
            show_progress_on=shown,
            **in_order,
        ).then(None, js=TO_THE_RESULT)
        view.change(page.show, [last, view], shown, api_visibility="private")
    return blocks
