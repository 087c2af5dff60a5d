"""What the page shows of a photo: its segmentation by words, regions, areas and a sentence, and
masks before and after they were sharpened.

Without Gradio. Words of the user go into HTML only escaped.
"""

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from io import BytesIO

import numpy as np
from PIL import Image

from tf_groupvit.errors import InputError
from tf_groupvit.preprocessing.image_reading import ImageLike
from tf_groupvit.segmentation.palette import group_colors
from tf_groupvit.segmentation.prompts import ClassEmbeddings, embed_classes
from tf_groupvit.segmentation.result import Segmentation
from tf_groupvit.segmentation.segmenter import Segmenter
from tf_groupvit.segmentation.templates import SIMPLE

KEPT = 32  # words and choices whose segmenters stay ready, so that going back encodes nothing again
CLASSES = "Classes"  # the view of classes
NAMED = 8  # classes that the sentence names; the chart has all
STRENGTH = 0.6  # opacity of a region's color over the photo
SIDE = 1000  # pixels from which on pictures are shown at a half, a third, ... of their size
REFINE = "pamr"  # sharpens masks unless the base has a refinement of its own

# The photo (H, W, 3), and masks (H, W) with their names.
Regions = tuple[np.ndarray, list[tuple[np.ndarray, str]]]


@dataclass(frozen=True)
class Choices:
    """What the page offers besides photo and words; ``background`` 0 is no background."""

    templates: str = SIMPLE
    protocol: str = "paper"
    mode: str = "whole"
    background: float = 0.0
    refine: str | None = None


class PageModel:
    """Segments photos with the model of one segmenter, under any classes and choices.

    Args:
        base: whose model, tokenizer and processor are used; its classes are the page's first words.
        normalize: "imagenet" or "clip" statistics instead of the processor's.
    """

    def __init__(self, base: Segmenter, normalize: str | None = None) -> None:
        if base.tokenizer is None:
            raise InputError(
                "The page needs a tokenizer, for words that are typed: name a checkpoint that has"
                " one."
            )
        self.base, self._normalize = base, normalize
        self._embeddings = lru_cache(KEPT)(self._embed)
        self._segmenter = lru_cache(KEPT)(self._build)

    @property
    def stages(self) -> int:
        """How many grouping stages the model has."""
        return sum(tokens > 0 for tokens in self.base.model.config.vision_config.num_group_tokens)

    @property
    def refine(self) -> str:
        """The refinement that sharpens masks."""
        return self.base.settings.refine or REFINE

    def segment(
        self, photo: ImageLike | None, words: str, choices: Choices = Choices()
    ) -> Segmentation:
        """Segment a photo, an array of it uint8 (H, W, 3), by words between commas or line breaks.

        Raises:
            InputError: there is no photo, it is no image, or the words or choices cannot be used.
        """
        if photo is None:
            raise InputError(
                "There is no photo yet: upload one, take one, paste one, or choose an example."
            )
        return self._segmenter(words_of(words), choices)(photo)

    def _embed(self, words: tuple[str, ...], templates: str) -> ClassEmbeddings:
        assert self.base.tokenizer is not None
        return embed_classes(self.base.model, self.base.tokenizer, words, templates)

    def _build(self, words: tuple[str, ...], choices: Choices) -> Segmenter:
        return self.base.with_choices(
            self._embeddings(words, choices.templates),
            protocol=choices.protocol,
            mode=choices.mode,
            background=choices.background or None,
            size=None,
            normalize=self._normalize,
            refine=choices.refine,
        )


def words_of(text: str) -> tuple[str, ...]:
    """Classes as they are typed: commas or line breaks between them, empty ones dropped.

    Raises ``InputError`` if none is left.
    """
    words = (" ".join(word.split()) for word in text.replace("\n", ",").split(","))
    found = tuple(word for word in words if word)
    if not found:
        raise InputError("There are no classes yet: type some words, e.g. dog, grass, sky.")
    return found


def view_names(stages: int) -> list[str]:
    """The views to choose from: the classes, then the groups of each stage."""
    return [CLASSES, *(f"Groups of stage {stage}" for stage in range(1, stages + 1))]


def regions(result: Segmentation, view: str) -> tuple[Regions, dict[str, str]]:
    """The photo (H, W, 3) with the masks (H, W) of a view, and {name: its color ``#rrggbb``}.

    The largest region is first. Groups are called ``group 3``, and those of the last stage also by
    the class that each is closest to. Large photos are shrunk, see ``SIDE``.
    """
    if view == CLASSES:
        labels, names, colors = result.labels, result.class_names, result.colors
    else:
        labels = result.groups[int(view.rsplit(" ", 1)[1]) - 1]
        names = [f"group {number}" for number in range(int(labels.max()) + 1)]
        if labels is result.final_group:
            best = enumerate(result.group_classes(1))
            names = [f"group {number}: {classes[0][0]}" for number, classes in best]
        colors = group_colors(len(names))
    sizes = np.bincount(labels.ravel(), minlength=len(names))
    present = [int(number) for number in np.argsort(-sizes, kind="stable") if sizes[number]]
    image, labels = _shrunk(result.image, labels)
    masks = [((labels == number) * STRENGTH, names[number]) for number in present]
    return (image, masks), {names[number]: _hex(colors[number]) for number in present}


def _shrunk(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A photo (H, W, 3) and labels (H, W) of it, both at the same part of their size."""
    part = max(1, max(labels.shape) // SIDE)
    if part == 1:
        return image, labels
    return np.asarray(Image.fromarray(image).reduce(part)), labels[::part, ::part]


def chart(result: Segmentation) -> str:
    """The areas as an HTML table whose rows are bars in the classes' colors, read out as numbers.

    Classes that are not in the picture are folded away behind their number.
    """
    colors = dict(zip(result.class_names, result.colors, strict=True))
    ranked = sorted(result.areas.items(), key=lambda item: -item[1])
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td><span class="bar"'
        f' style="width:{100 * area:.2f}%;background:{_hex(colors[name])}"'
        f' aria-hidden="true"></span><span class="share">{area:.1%}</span></td></tr>'
        for name, area in ranked
        if area
    )
    table = (
        '<table class="areas"><caption>Part of the picture that each class'
        ' covers</caption><thead><tr><th scope="col">Class</th><th'
        f' scope="col">Area</th></tr></thead><tbody>{rows}</tbody></table>'
    )
    absent = [escape(name) for name, area in ranked if not area]
    if not absent:
        return table
    noun = "class is" if len(absent) == 1 else "classes are"
    return (
        f'{table}<details class="absent"><summary>{len(absent)} {noun} not in the'
        f" picture</summary><p>{', '.join(absent)}</p></details>"
    )


COMPARED = """<figure class="compared"><figcaption><b>Before and after sharpening</b> {change}
Left of the line are the masks as the model found them, in patches; right of it, sharpened. Drag the
line, or move it with the arrow keys.</figcaption>
<div class="pair" style="--ratio:{ratio}">
<div class="before"><img alt="The photo under its masks before sharpening" src="{before}">
<span aria-hidden="true">Before</span></div>
<div class="after"><img alt="The photo under its masks after sharpening" src="{after}">
<span aria-hidden="true">After</span></div>
<input type="range" value="50" aria-label="Part of the picture that shows masks before sharpening"
oninput="this.parentNode.style.setProperty('--cut', this.value + '%')">
</div></figure>"""


def comparison(before: Segmentation, after: Segmentation) -> str:
    """One photo under both its masks as HTML, with a line to move between them."""
    changed = (before.labels != after.labels).mean()
    if not changed:
        return '<p class="compared">Sharpening changed no pixel.</p>'
    height, width = after.labels.shape
    pictures = []
    for labels in before.labels, after.labels:
        image, labels = _shrunk(after.image, labels)
        colored = image * (1 - STRENGTH) + after.colors[labels] * STRENGTH
        file = BytesIO()
        Image.fromarray(colored.astype("uint8")).save(file, "JPEG", quality=90, subsampling=0)
        pictures.append("data:image/jpeg;base64," + b64encode(file.getvalue()).decode())
    return COMPARED.format(
        change=f"{changed:.1%} of the pixels changed their class.",
        ratio=width / height,
        before=pictures[0],
        after=pictures[1],
    )


def sentence(result: Segmentation) -> str:
    """What the picture shows, in a line of HTML that a screen reader announces."""
    shares = sorted(result.areas.items(), key=lambda item: -item[1])
    present = [f"{escape(name)} {area:.0%}" for name, area in shares if area]
    more = [f"and {len(present) - NAMED} more"] if len(present) > NAMED else []
    named = ", ".join([*present[:NAMED], *more])
    height, width = result.labels.shape
    return f'<p role="status" class="status">Segmented {width}x{height} pixels: {named}.</p>'


def alert(message: str) -> str:
    """An error as HTML that a screen reader announces at once."""
    return f'<p role="alert" class="refused">{escape(message)}</p>'


def _hex(color: Iterable[int]) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in color)
