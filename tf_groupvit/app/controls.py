"""Example photos and first words in; the page's controls, inputs and outputs, each with its name, out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from tf_groupvit.segmentation.settings import MODES, PROTOCOLS
from tf_groupvit.segmentation.templates import SETS, SIMPLE

Examples = Sequence[tuple[Path, str]]  # photos, and the words to segment each by


def photo_control() -> Any:
    """A photo by upload, camera or clipboard; the path of its file, as it came."""
    photo = gr.Image(
        type="filepath", sources=["upload", "webcam", "clipboard"], label="Photo", elem_id="photo", height=320
    )
    # Our own reader turns by EXIF, scales 16 bits, and says in words what is wrong with a file: Gradio's does not.
    photo.preprocess = lambda payload: None if payload is None else payload.path
    return photo


def examples_control(photo: Any, examples: Examples) -> Any:
    """A row of pictures; a click gives the index of the chosen one."""
    samples = [[str(path)] for path, _ in examples]
    return gr.Dataset(
        components=[photo],
        samples=samples,
        type="index",
        label="Example photos",
        elem_id="examples",
    )


def words_control(words: str) -> Any:
    hint = "Words, separated by commas; sofa|couch are synonyms. Shift+Enter segments."
    return gr.Textbox(words, label="Classes", info=hint, lines=2, max_lines=6, elem_id="classes")


def choice_controls() -> list[Any]:
    """Template, protocol, mode and background, under a heading that opens."""
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
        background = gr.Slider(0, 1, 0, step=0.01, label="Background threshold", info=hint, elem_id="background")
        hint = "paper: the published inference; hf: transformers' logits."
        protocol = gr.Radio(PROTOCOLS, value=PROTOCOLS[0], label="Protocol", info=hint, elem_id="protocol")
        hint = "whole: the photo as one square; window: windows over it."
        mode = gr.Radio(MODES, value=MODES[0], label="Mode", info=hint, elem_id="mode")
    return [templates, protocol, mode, background]


def result_controls() -> list[Any]:
    """Regions, areas, and the two downloads."""
    shown = gr.AnnotatedImage(label="Regions", elem_id="regions")
    areas = gr.HTML(elem_id="areas")
    with gr.Row():
        mask = gr.DownloadButton("Mask (PNG)", interactive=False, elem_id="mask")
        told = gr.DownloadButton("Numbers (JSON)", interactive=False, elem_id="json")
    return [shown, areas, mask, told]
