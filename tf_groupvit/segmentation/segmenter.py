"""Images and class names in, ``Segmentation``s out: classes are encoded once, images many times."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence, Sized
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
from tqdm import tqdm

from tf_groupvit.errors import InputError
from tf_groupvit.files import atomic_write, read_json
from tf_groupvit.hub import resolve, warn_of_demo
from tf_groupvit.memory import nothing_to_collect
from tf_groupvit.models.base_model import check_process, is_forked
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.models.optimized import optimized
from tf_groupvit.preprocessing.image import ImageProcessor
from tf_groupvit.preprocessing.image_reading import ImageLike, read_image, several
from tf_groupvit.preprocessing.tokenizer import Tokenizer
from tf_groupvit.runtimes import AUTO, GRAPH, WITH_AUTO, check_runtime
from tf_groupvit.segmentation.batches import MOST_IMAGES
from tf_groupvit.segmentation.class_names import BACKGROUND, ClassNames, parse_classes
from tf_groupvit.segmentation.pipeline import Found, Pipeline
from tf_groupvit.segmentation.pixel_labeler import PixelLabeler
from tf_groupvit.segmentation.prompts import ClassEmbeddings, embed_classes
from tf_groupvit.segmentation.result import Segmentation
from tf_groupvit.segmentation.settings import check_choices, make_settings
from tf_groupvit.segmentation.templates import SIMPLE, templates_of
from tf_groupvit.segmentation.upsampling import LowResScores

CHOICES = "segmenter.json"  # what save_pretrained adds to the checkpoint: classes and settings
SAVED = ("protocol", "mode", "background", "size", "normalize", "refine")
BAR = "{n} of {total} images |{bar}| {elapsed}<{remaining}"
NEVER, ONCE = (
    (*SAVED, "templates", "class_names", "text_embeds"),
    ("model", "processor", "settings", "runtime"),
)
MOST_NAMES = 10  # that a segmenter's repr shows

Classes = ClassNames | ClassEmbeddings


class Segmenter:
    """Zero-shot segmentation: ``Segmenter.from_pretrained(folder, classes=["dog",
    "grass"])("photo.jpg")``.

    Args:
        classes: names, as a list or separated by commas; ``"sofa|couch"`` are synonyms, and so are
            those of a dict, ``{"sofa": ["couch"]}``; or a ``Path``, a text file with one class a
            line; or ``ClassEmbeddings``, for which neither tokenizer nor text tower is needed.
        templates: ``"a photo of a {}."``, several, or a set: identity, simple, subset, full.
        protocol: "paper", the published inference, or "hf", the arg max of transformers'
            segmentation logits.
        mode: "whole", the image as one square, or "window", windows over it, as the published
            numbers were made.
        background: a threshold from 0 to 1; adds the class "background", label 0. Not with protocol
            "hf".
        size: side of the square in mode whole, a multiple of the patch size; the model's image size
            unless given.
        normalize: "imagenet" or "clip" statistics instead of the processor's.
        refine: "pamr", "pamr-published" or "guided" sharpen masks along the edges of the picture;
            scores and areas are those of the refined masks then. settings.REFINEMENTS has their
            constants. None, the published inference, leaves them as coarse as the patches.
        runtime: "graph", TensorFlow's own, is live: every answer is that of the model's weights as
            they are. The others are snapshots of the weights at the time the segmenter is made;
            ``refresh()`` renews them. "lite", LiteRT's interpreter for the vision tower: faster for
            each image, after some seconds of preparation for each size of squares or windows;
            "lite_int8", the same in 8 bits: faster still, with labels that are nearly the same; or
            "openvino", OpenVINO in LiteRT's place, which the extra ``openvino`` brings: faster
            where Intel made the processor, and prepared earlier; or "onnx", ONNX Runtime, of the
            extra ``onnx``. How each works is said in its file in runtimes/. "auto" measures those
            that are installed and exact once on this machine, says in one line which it takes, and
            remembers it in the user's cache (segmentation/fastest.py). What it takes may be a
            snapshot; ``runtime`` is its name then, and ``refresh()`` renews it.

    It has ``model``, ``tokenizer``, ``processor``, ``class_names`` (K, background first),
    ``text_embeds`` (N, D), ``settings``, ``runtime`` and ``source``, the folder that it was loaded
    from, or None. Nothing is cropped: every pixel of an image gets a label. The classes are encoded
    once, when the segmenter is made, whatever the runtime: ``refresh()`` encodes them with the
    weights as they are now.

    A segmenter can be pickled and copied, also for processes that are spawned; what was traced or
    compiled is made anew there. A process that was forked after a model was made cannot use it, and
    is told so.

    Raises:
        InputError: classes, templates or settings that cannot be used, each said by name; a runtime
            that is not installed; or a model that it cannot run, since it is not float32, or not on
            TensorFlow.
    """

    source: Path | None = None

    def __init__(
        self,
        model: TFGroupViTModel,
        tokenizer: Tokenizer | None,
        processor: ImageProcessor,
        classes: Classes,
        templates: str | Sequence[str] = SIMPLE,
        protocol: str = "paper",
        mode: str = "whole",
        background: float | None = None,
        size: int | None = None,
        normalize: str | None = None,
        runtime: str = GRAPH,
        refine: str | None = None,
    ) -> None:
        check_runtime(runtime, WITH_AUTO)
        self.model, self.tokenizer, self.processor = model, tokenizer, processor
        saved: dict[str, Any] = dict(
            zip(SAVED, (protocol, mode, background, size, normalize, refine), strict=True)
        )
        if runtime == AUTO:
            from tf_groupvit.segmentation.fastest import fastest

            runtime = fastest(model, make_settings(model.config.vision_config, processor, **saved))
        runs = model if runtime == GRAPH else optimized(model, runtime)
        self._choose(classes, templates, {**saved, "runtime": runtime}, runs)

    def _choose(
        self,
        classes: Classes,
        templates: str | Sequence[str],
        choices: dict[str, Any],
        runs: TFGroupViTModel,
    ) -> None:
        """``runs``: the model itself, or the snapshot of it that looks at images."""
        self._choices, self.runtime = choices, choices["runtime"]
        saved = {name: choices[name] for name in SAVED}
        self.settings = make_settings(self.model.config.vision_config, self.processor, **saved)
        self._words: tuple[list[str], tuple[str, ...]] | None = None  # what refresh() encodes anew
        self._classes = (
            classes if isinstance(classes, ClassEmbeddings) else self._embed(classes, templates)
        )
        self._check_classes()
        self._run(runs)

    def _run(self, model: TFGroupViTModel) -> None:
        """Have images looked at by a model, or a snapshot of one."""
        self.pipeline = Pipeline(model, self.settings)
        self._labeler: PixelLabeler | None = None

    def _embed(self, classes: ClassNames, templates: str | Sequence[str]) -> ClassEmbeddings:
        check_process()
        if self.tokenizer is None:
            raise InputError(
                "Class names need a tokenizer: give one, or"
                " classes=ClassEmbeddings.load('classes.npz')."
            )
        self._words = ["|".join(names) for names in parse_classes(classes)], templates_of(templates)
        return embed_classes(self.model, self.tokenizer, *self._words)

    def refresh(self) -> None:
        """After the model's weights have changed: encode the classes anew, and make a new snapshot
        of the weights.

        Classes that were given as ``ClassEmbeddings``, or read from a saved folder, stay as they
        are: name them with ``with_classes`` instead. The snapshot is that of a ``runtime`` other
        than "graph", which needs none.
        """
        check_process()
        if self._words is not None:
            self._classes = self._embed(*self._words)
        self._run(self.model if self.runtime == GRAPH else optimized(self.model, self.runtime))

    def __getstate__(self) -> dict[str, Any]:
        """Weights, tokenizer, processor, classes and settings; what was traced or compiled is made
        anew.
        """
        made = ("pipeline", "_labeler")
        return {name: value for name, value in vars(self).items() if name not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        compiles = self.runtime != GRAPH and not is_forked()
        self._run(optimized(self.model, self.runtime) if compiles else self.model)

    def _check_classes(self) -> None:
        width = self.model.config.projection_dim
        if self.classes.embeds.shape[1] != width:
            came = self.classes.embeds.shape[1]
            raise InputError(
                f"The class embeddings are {came} wide, the model's are {width}: make them with"
                " this model."
            )
        if self.settings.background is not None and BACKGROUND in self.classes.names:
            raise InputError(
                f"{BACKGROUND!r} is a class and background= adds one of that name: give one of"
                " them."
            )

    @classmethod
    def from_pretrained(
        cls,
        folder_or_hub_id: str | os.PathLike[str],
        classes: Classes | None = None,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        dtype: str | None = None,
        **choices: Any,
    ) -> Self:
        """Load model, tokenizer and processor from one folder or hub id; ``choices`` are those of
        the class.

        Without ``classes``, the folder must be one that ``save_pretrained`` wrote, which holds
        them.
        """
        folder = resolve(
            folder_or_hub_id,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        if not folder.is_dir():
            raise InputError(
                f"{folder} is a file: a segmenter needs the folder with config, weights and"
                " tokenizer."
            )
        if classes is None:
            classes, choices = _read_choices(folder, choices)
        with nothing_to_collect():
            model = TFGroupViTModel.from_pretrained(folder, dtype=dtype)
            needed = not isinstance(classes, ClassEmbeddings) or _has_tokenizer(folder)
            tokenizer = Tokenizer.from_pretrained(folder) if needed else None
            segmenter = cls(model, tokenizer, _processor_of(folder), classes, **choices)
        segmenter.source = folder
        warn_of_demo(folder)
        return segmenter

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write a checkpoint folder that ``from_pretrained(folder)`` reads back, classes and
        settings included.
        """
        target = Path(folder)
        self.model.save_pretrained(target)
        self.processor.save_pretrained(target)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(target)
        self.classes.save(target / "classes.npz")
        content = {"classes": "classes.npz", **{name: self._choices[name] for name in SAVED}}
        atomic_write(target / CHOICES, (json.dumps(content, indent=2) + "\n").encode())

    @property
    def classes(self) -> ClassEmbeddings:
        """Names, embeddings and templates. Assigned classes of any kind are encoded, in the
        templates of the last.
        """
        return self._classes

    @classes.setter
    def classes(self, classes: Classes) -> None:
        before = dict(vars(self))
        try:
            if isinstance(classes, ClassEmbeddings):
                self._words = None
            else:
                classes = self._embed(classes, self._classes.templates)
            self._classes = classes
            self._check_classes()
        except BaseException:  # what was refused changes nothing
            vars(self).clear()
            vars(self).update(before)
            raise
        self._labeler = None  # knows the last classes

    @property
    def normalize(self) -> str | None:
        """The statistics chosen in place of the processor's, "imagenet" or "clip"; or None."""
        return self._choices["normalize"]

    @property
    def class_names(self) -> list[str]:
        """The K classes in the order of their labels; "background" first where there is one."""
        return [BACKGROUND] * (self.settings.background is not None) + list(self.classes.names)

    @property
    def text_embeds(self) -> np.ndarray:
        """Normalised embeddings of the classes (N, D), float32; the background has none."""
        return self.classes.embeds

    def with_background(self, background: float | None) -> Self:
        """The same model and classes with another threshold."""
        return self.with_choices(background=background)

    def with_classes(self, classes: Classes, templates: str | Sequence[str] | None = None) -> Self:
        """The same model and settings with other classes, encoded now, in the same templates unless
        some are given.
        """
        return self.with_choices(classes, templates)

    def with_choices(
        self,
        classes: Classes | None = None,
        templates: str | Sequence[str] | None = None,
        **choices: Any,
    ) -> Self:
        """The same model, or the same snapshot of it, with other classes, or with other choices but
        ``runtime``.

        Raises InputError as the class does.
        """
        for name in choices.keys() - set(SAVED):
            raise InputError(f"There is no choice {name!r}: expected some of {', '.join(SAVED)}.")
        other = type(self).__new__(type(self))
        other.model, other.tokenizer, other.processor = self.model, self.tokenizer, self.processor
        other.source, given = self.source, self.classes if classes is None else classes
        templates = self.classes.templates if templates is None else templates
        other._choose(given, templates, {**self._choices, **choices}, self.pipeline.model)
        if classes is None:
            other._words = self._words
        return other

    def labels_by_threshold(self, image: Any, thresholds: Sequence[float]) -> Iterator[np.ndarray]:
        """The labels (H, W) that each background threshold would give, one after the other, from
        one look.

        A threshold acts in every window, before windows are averaged; the classes' scores are the
        same for all.
        """
        check_process()
        for threshold in thresholds:
            check_choices(self.settings.protocol, background=threshold)
        pixels, trial = read_image(image), Pipeline(self.pipeline.model, self.settings, thresholds)
        scores = trial.find([pixels], self.text_embeds)[0].scores  # thresholds, then classes
        classes = range(len(thresholds), scores.rows.shape[-1])
        for index in range(len(thresholds)):
            yield scores.of_classes([index, *classes]).labels(*pixels.shape[:2])

    if not TYPE_CHECKING:  # type checkers know the attributes

        def __setattr__(self, name: str, value: Any) -> None:
            """Refuse what would be kept and never looked at: only classes and the tokenizer can be
            assigned.
            """
            if name in NEVER or (name in ONCE and name in vars(self)):
                how = {
                    "background": "with_background(...)",
                    "templates": "with_classes(..., templates)",
                }
                raise InputError(
                    f"{name} of a segmenter cannot be assigned: make another with"
                    f" {how.get(name, 'Segmenter(...)')}."
                )
            super().__setattr__(name, value)

    def __repr__(self) -> str:
        names, settings = self.class_names, self.settings
        shown = [
            *map(repr, names[:MOST_NAMES]),
            *([f"{len(names) - MOST_NAMES} more"] if names[MOST_NAMES:] else []),
        ]
        size = (
            " x ".join(map(str, settings.size))
            if settings.mode == "whole"
            else f"windows of {settings.window}"
        )
        templates = self.classes.templates
        said = {
            "templates": repr(templates[0]) if len(templates) == 1 else len(templates),
            "protocol": settings.protocol,
            "mode": f"{settings.mode} ({size})",
            "background": settings.background,
            "normalize": self._choices["normalize"] or "as the processor",
            "refine": settings.refine,
            "runtime": self.runtime,
        }
        told = "".join(f", {name}={value}" for name, value in said.items())
        return f"Segmenter({len(names)} classes: {', '.join(shown)}{told})"

    @overload
    def __call__(self, images: ImageLike) -> Segmentation: ...  # type: ignore[overload-overlap]  # one that has parts
    @overload
    def __call__(self, images: Iterable[ImageLike]) -> list[Segmentation]: ...
    def __call__(self, images: Any) -> Any:
        """Segment one image: a ``Segmentation``; or several, as a list, a generator or the like: a
        list of them.

        An image is a path, a file opened with mode "rb", bytes, a PIL image, or an array or tensor
        (H, W, 3) of numbers from 0 to 255, best uint8; (H, W) is gray, and a fourth channel is
        dropped. Raises ImageError for what cannot be read, or in two ways, and says how to convert.
        Over more than 8 images a terminal shows how many are done.
        """
        listed = several(images)
        if listed is None:
            return self.segment_batch([images])[0]
        waiting, found = iter(listed), list[Segmentation]()
        count = len(listed) if isinstance(listed, Sized) else 0
        silent = None if count > MOST_IMAGES else True  # None: it is, but for a terminal
        with tqdm(total=count, disable=silent, leave=False, bar_format=BAR) as progress:
            while batch := list(islice(waiting, MOST_IMAGES)):
                found += self.segment_batch(batch)
                progress.update(len(batch))
        return found

    def segment_batch(self, sources: Sequence[ImageLike]) -> list[Segmentation]:
        """Segment images that go through the model together, however many they are.

        A call splits a long list into batches of 8.
        """
        check_process()
        images = [read_image(source) for source in sources]
        found = self.pipeline.find(images, self.text_embeds)
        return [self._result(*pair) for pair in zip(images, found, strict=True)]

    def _result(self, image: np.ndarray, found: Found) -> Segmentation:
        """What was found stays as it is; only in mode window groups are looked for when they are
        asked for.
        """
        (height, width), scores = image.shape[:2], found.scores
        groups = found.groups or _Groups(self.pipeline, image, self.text_embeds)
        return Segmentation(
            scores.labels(height, width),
            self.class_names,
            image,
            class_scores=partial(scores.highest, height, width),
            scores=partial(scores.enlarged, height, width),
            margins=partial(scores.margins, height, width, self.settings.protocol == "hf"),
            groups=partial(_group_labels, groups, height, width),
            group_embeds=partial(_part, groups, "group_embeds"),
            group_scores=partial(_part, groups, "group_scores"),
        )

    def classify(self, images: Any) -> np.ndarray:
        """Probabilities of the classes, background aside, for one image (N), or a list of them (B,
        N).

        Images are seen whole and uncropped, as mode "whole" sees them.
        """
        check_process()
        listed = several(images)
        waiting = iter([images] if listed is None else listed)
        found = [np.empty((0, len(self.text_embeds)), "float32")]
        while batch := list(islice(waiting, MOST_IMAGES)):
            pixels = [read_image(source) for source in batch]
            found.append(self.pipeline.probabilities(pixels, self.text_embeds))
        return found[1][0] if listed is None else np.concatenate(found)

    def predict(self, pixels: Any, **keywords: Any) -> np.ndarray:
        """Labels (B, H, W) of images of one size, under Keras' own ``predict``, which takes the
        keywords.

        Pixels are an array or tensor (B, H, W, 3) of numbers from 0 to 255, best uint8, also gray,
        (B, H, W, 1), or with alpha; or a list or generator of images or of batches; or a
        ``tf.data.Dataset`` of either, with or without labels. Labels are uint8, as those of a call
        are, or int32 over 256 classes. Raises InputError for pixels of another range, shape or of
        several sizes, and says how to convert.
        """
        check_process()
        if self._labeler is None or self._labeler.texts is not self.text_embeds:
            self._labeler = PixelLabeler(self.pipeline.model, self.settings, self.text_embeds)
        return self._labeler.predict(pixels, **keywords)


class _Groups:
    """``Found.groups`` of an image, looked for when they are first asked for, or when they are
    pickled.
    """

    def __init__(self, pipeline: Pipeline, image: np.ndarray, texts: np.ndarray) -> None:
        self._look: Any = partial(pipeline.groups, image, texts)
        self._found: dict[str, Any] | None = None

    def __call__(self) -> dict[str, Any]:
        if self._found is None:
            self._found = self._look()
        return self._found

    def __getstate__(self) -> dict[str, Any]:
        return {"_look": None, "_found": self()}


def _part(groups: Any, name: str) -> Any:
    """An entry of ``Found.groups``, or of a function that returns them."""
    return (groups() if callable(groups) else groups)[name]


def _group_labels(groups: Any, height: int, width: int) -> list[np.ndarray]:
    """The group of each pixel (height, width) in every stage."""
    return [LowResScores(maps).labels(height, width) for maps in _part(groups, "maps")]


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("tokenizer.json", "vocab.json"))


def _processor_of(folder: Path) -> ImageProcessor:
    return ImageProcessor.from_pretrained(folder)


def _read_choices(folder: Path, choices: dict[str, Any]) -> tuple[ClassEmbeddings, dict[str, Any]]:
    """Classes and settings that ``save_pretrained`` left in the folder; what the caller says goes
    first.
    """
    file = folder / CHOICES
    if not file.exists():
        raise InputError(
            "Class names are missing: give some, e.g. classes=['dog', 'grass'] or --classes"
            " dog,grass."
        )
    if "templates" in choices:
        raise InputError("templates= needs classes=: the folder's classes are encoded already.")
    saved = read_json(file, InputError)
    try:
        classes = Path(saved.pop("classes")).name  # of this folder, whatever the file says
        chosen = {name: saved.pop(name, None) for name in SAVED}
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{file} is damaged ({error!r}): write it again with save_pretrained."
        ) from error
    if saved:
        raise InputError(
            f"{file} holds {sorted(saved)[0]!r}, which is no setting: write it again with"
            " save_pretrained."
        )
    return ClassEmbeddings.load(folder / classes), {**chosen, **choices}
