"""Export a segmenter as files that run without TensorFlow: LiteRT, ONNX or OpenVINO.

All formats are converted from the same two functions of ``Portable``. What is left to the host is:
decode the image, resize it to the model's square, run the file, enlarge the labels. The settings
beside the files say which size and which resize.
"""

import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from tf_groupvit.errors import ExportError, one_line
from tf_groupvit.export.saving import SAVED_MODEL, export_saved_model
from tf_groupvit.export.signature_examples import picture
from tf_groupvit.export.signatures import check_servable
from tf_groupvit.export.text_inputs import MOST_LABELS
from tf_groupvit.export.version_folder import class_tables, provenance, write_tables
from tf_groupvit.models.operations import first_argmax, normalize
from tf_groupvit.models.optimized import optimized
from tf_groupvit.preprocessing.image_arrays import gray_levels
from tf_groupvit.preprocessing.image_reading import ImageLike, read_image
from tf_groupvit.quiet import held_back
from tf_groupvit.runtimes.compiled import inputs_of
from tf_groupvit.segmentation.pipeline import score_squares
from tf_groupvit.segmentation.prompts import encode_prompts
from tf_groupvit.segmentation.protocol import class_affinity, encode_image, with_background
from tf_groupvit.segmentation.refinement import resize, sharpen
from tf_groupvit.segmentation.settings import REFINEMENTS
from tf_groupvit.segmentation.upsampling import LowResScores
from tf_groupvit.types import Tensor

if TYPE_CHECKING:
    from tf_groupvit.segmentation.segmenter import Segmenter

Function: TypeAlias = tf.types.experimental.ConcreteFunction
CHECKED = 8  # pictures
MOST_CALIBRATED = 300  # pictures
CALIBRATED_AGREE = 0.9  # of the labels: with fewer the pictures are others, or something is wrong
SHARPENING = "pamr"
RESIZE = "the whole image to this height and width, bicubic as of Pillow (a = -0.5, antialiased)"
CARD = """\
# GroupViT for {title}

`vision` labels the pixels of RGB images that were resized to {size}: {names}.
`settings.json` says what goes in and what comes out, `classes.json` and `palette.json` what the
labels mean and how to paint them.
"""
_log = logging.getLogger(__name__)


class Portable:
    """The functions of a segmenter that the files hold, from a snapshot of its weights.

    ``batch`` is the number of images of a call, None for any; ``maps`` as of ``export_portable``.
    """

    def __init__(
        self, segmenter: "Segmenter", batch: int | None = None, maps: bool = False
    ) -> None:
        self.segmenter, self.settings, self.batch = segmenter, segmenter.settings, batch
        self.maps = maps
        self.model = optimized(segmenter.model)
        self.levels = gray_levels(1 / 255, self.settings.mean, self.settings.std)

    def vision(self, is_open: bool) -> Function:
        """Squares ``pixels`` uint8 (B, S, S, 3) -> ``labels`` uint8 (B, S, S) and ``class_scores``
        float32 (B, K), the highest of any pixel.

        With ``is_open`` there is a second input, ``text_embeds`` (N, D) of any length; else the
        classes are those of the segmenter. A background is the first of the K classes.
        """
        specs = [tf.TensorSpec((self.batch, *self.settings.size, 3), tf.uint8, "pixels")]
        if not is_open:
            # As an array: a tensor would be an input of the function, and of the file.
            classes = np.asarray(self.segmenter.text_embeds)
            return _traced(lambda pixels: self._look(pixels, classes), specs)
        width = self.segmenter.text_embeds.shape[1]
        specs.append(tf.TensorSpec((None, width), tf.float32, "text_embeds"))
        return _traced(lambda pixels, text_embeds: self._look(pixels, text_embeds), specs)

    def text(self) -> Function:
        """``input_ids`` int32 (B, T) -> ``text_embeds`` float32 (B, D), not normalized.

        The embedding of a class is the mean of those of its prompts.
        """
        specs = [tf.TensorSpec((self.batch, _context(self.segmenter)), tf.int32, "input_ids")]

        def encode(input_ids: Tensor) -> dict[str, Tensor]:
            return {"text_embeds": self.model.get_text_features(input_ids, training=False)}

        return _traced(encode, specs)

    def sharpening(self) -> Function:
        """Squares ``pixels`` and their ``scores`` float32 (B, S, S, K) -> ``sharp_scores``.

        For hosts that choose at each call whether masks are sharpened.
        """
        size = self.settings.size
        specs = [
            tf.TensorSpec((self.batch, *size, 3), tf.uint8, "pixels"),
            tf.TensorSpec((self.batch, *size, None), tf.float32, "scores"),
        ]
        how = REFINEMENTS[SHARPENING]
        return _traced(lambda pixels, scores: {"sharp_scores": sharpen(scores, pixels, how)}, specs)

    def _look(self, pixels: Tensor, texts: Tensor) -> dict[str, Tensor]:
        groups = encode_image(self.model, self._normalized(pixels))
        threshold = self.settings.background
        scores = score_squares(groups, self.settings, pixels, normalize(texts), threshold)
        rows = _of_pixels(scores)
        labels = tf.squeeze(first_argmax(rows, -1), -1)
        found = {
            "labels": tf.cast(labels, tf.uint8),
            "class_scores": tf.reduce_max(rows, axis=(1, 2)),
        }
        if self.maps:
            affinity = with_background(class_affinity(groups, normalize(texts)), threshold)
            found |= {"scores": rows, "group_scores": affinity}
            for stage, maps in enumerate(groups["maps"], 1):
                found[f"groups_{stage}"] = tf.transpose(maps, (0, 2, 3, 1))
        return found

    def _normalized(self, pixels: Tensor) -> Tensor:
        """uint8 (B, S, S, 3) -> float32 (B, 3, S, S): the floats of ``image_arrays.normalize``, by
        the same table, since converters compute a division in other ways.
        """
        levels = self.levels.T.reshape(-1)  # of one channel after the other
        found = tf.gather(levels, tf.cast(pixels, tf.int32) + np.array([0, 256, 512], "int32"))
        return tf.transpose(found, (0, 3, 1, 2))


def _context(segmenter: "Segmenter") -> int:
    """How many tokens a prompt has, padding included."""
    tokenizer, positions = segmenter.tokenizer, segmenter.model.config.text_config
    most: int = positions.max_position_embeddings
    return most if tokenizer is None else min(tokenizer.max_length, most)


def _of_pixels(scores: LowResScores) -> Tensor:
    """Scores of every pixel of the squares, (B, S, S, K)."""
    if scores.owner is not None:
        # A product, since converters lack gathering with a batch dimension. Exact: one factor is 1.
        groups = tf.range(tf.shape(scores.rows)[1])
        maps = tf.cast(scores.owner[..., None] == groups, tf.float32)
        return maps @ tf.expand_dims(scores.rows, 1)
    if scores.shares is not None:
        return scores.shares @ tf.expand_dims(scores.rows, 1)
    if scores.size is not None:
        return resize(scores.rows, *tf.unstack(scores.size))
    return scores.rows


def _traced(function: Callable[..., Any], specs: list[tf.TensorSpec]) -> Function:
    return tf.function(function, input_signature=specs, autograph=False).get_concrete_function()


# ---- formats: how each is written, and run again for the check ----

Inputs: TypeAlias = dict[str, np.ndarray]  # by name
Run: TypeAlias = Callable[[Inputs], dict[str, np.ndarray]]  # -> outputs, by name
Examples: TypeAlias = Sequence[Inputs]  # to calibrate on


def _write_litert(function: Function, file: Path, int8: bool, examples: Examples) -> None:
    from tf_groupvit.runtimes.lite import calibrated, converted

    content = converted(function, int8 and not examples)
    file.write_bytes(calibrated(content, examples) if examples else content)


def _open_litert(file: Path) -> Run:
    from tf_groupvit.runtimes.lite import interpreter_of

    answer = interpreter_of(model_path=str(file)).get_signature_runner()
    return lambda inputs: answer(**inputs)


def _write_onnx(function: Function, file: Path, int8: bool, examples: Examples) -> None:
    from tf_groupvit.runtimes.onnx import converted, quantize

    file.write_bytes(converted(function))
    if int8:
        quantize(file, examples)


def _open_onnx(file: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


def _write_openvino(function: Function, file: Path, int8: bool, examples: Examples) -> None:
    from tf_groupvit.runtimes.openvino import converted, quantized, write

    model = converted(function)
    if int8:
        model = quantized(model, examples)
    file.parent.mkdir(parents=True)
    write(model, file)


def _open_openvino(file: Path) -> Run:
    from tf_groupvit.runtimes.openvino import compiled

    model = compiled(file)

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        # an output that something else reads has several names
        return {name: rows for output, rows in model(inputs).items() for name in output.names}

    return run


class Format(NamedTuple):
    """A format: its own name; the file of a function, by a pattern; the images of a call, None for
    any number; how it is written and opened; the packages that this needs, and those of 8 bits
    without and with calibration.
    """

    title: str
    file: str
    batch: int | None
    write: Callable[[Function, Path, bool, Examples], None]
    open: Callable[[Path], Run]
    packages: tuple[str, ...] = ()
    int8_packages: tuple[str, ...] = ()
    calibrated_packages: tuple[str, ...] = ()


FORMATS = {
    "litert": Format(
        "LiteRT", "{}.tflite", 1, _write_litert, _open_litert, (), (), ("ai_edge_quantizer",)
    ),
    "onnx": Format("ONNX", "{}.onnx", None, _write_onnx, _open_onnx, ("tf2onnx", "onnxruntime")),
    # in folders as OpenVINO Model Server wants them: NAME/VERSION/
    "openvino": Format(
        "OpenVINO",
        "{0}/1/{0}.xml",
        None,
        _write_openvino,
        _open_openvino,
        ("openvino",),
        ("nncf",),
        ("nncf",),
    ),
}
# Package -> the extra that brings it, where that has another name.
EXTRAS = {"tf2onnx": "onnx", "onnxruntime": "onnx", "ai_edge_quantizer": "quantizer"}


# ---- the export ----


def export_model(
    segmenter: "Segmenter",
    folder: str | os.PathLike[str],
    format: str = SAVED_MODEL,
    **options: Any,
) -> Path:
    """Export as a SavedModel for TensorFlow Serving, or as files that run without TensorFlow.

    Args:
        format: "savedmodel", or a key of ``FORMATS``.
        options: those of ``export_saved_model``, or of ``export_portable``, which raise as they do.
    """
    if format == SAVED_MODEL:
        return export_saved_model(segmenter, folder, **options)
    return export_portable(segmenter, folder, format, **options)


def export_portable(
    segmenter: "Segmenter",
    folder: str | os.PathLike[str],
    format: str,
    int8: bool = False,
    is_open: bool = False,
    check: bool = False,
    say: Callable[[str], None] | None = None,
    calibration: Sequence[ImageLike] = (),
    maps: bool = False,
) -> Path:
    """Write a segmenter as files of LiteRT, ONNX or OpenVINO, with all that a host needs beside.

    ``vision`` labels squares of pixels; ``text``, with ``is_open``, encodes prompts. Beside them:
    ``settings.json`` (sizes, inputs and outputs, how to resize), ``classes.json``,
    ``palette.json``, ``README.md``, and with ``is_open`` the tokenizer. The folder is written under
    another name, and renamed when it is whole.

    Args:
        format: a key of ``FORMATS``.
        int8: weights in 8 bits: a quarter of the size, and labels that are nearly the same.
            Products are rounded by ranges that LiteRT and ONNX Runtime find at each call ("dynamic"
            quantization), and not at all by OpenVINO.
        calibration: pictures as the model will see them, a hundred or more; of more than 300 every
            second, third ... one. With ``int8`` the ranges are found on them, once ("static"
            quantization), for all three formats. The text encoder does without.
        is_open: leave the classes to the host, which gives ``text_embeds`` at each call.
        maps: also give ``scores`` float32 (B, S, S, K), for labels that are interpolated at the
            size of the image, ``groups_1`` ... of each stage, how much patches belong to groups,
            (B, rows, columns, G), and ``group_scores`` (B, G, K) of the last.
        check: run the files on eight pictures, and compare their labels with the segmenter's.
        say: called with a line on what is being done; ``logging`` is unless given.

    Returns:
        The folder.

    Raises:
        ExportError: a format that there is not, or whose packages are not installed; mode window;
            more than 256 labels; open classes without a tokenizer; calibration without 8 bits; a
            folder that holds something; a converter that refuses; or a check that fails.
        InputError: a model that cannot be folded.
        ImageError: a picture of the calibration cannot be read.
    """
    target, say, began = Path(folder), say or _log.info, time.monotonic()
    check_format(format, int8, bool(len(calibration)))
    check_empty(target)
    _check_segmenter(segmenter, is_open)
    row = FORMATS[format]
    unfinished = target.with_name(f"{target.name}.exporting-{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        examples = _examples(segmenter, calibration, is_open)
        portable = Portable(segmenter, row.batch, maps)
        functions = {"vision": portable.vision(is_open)}
        if is_open:
            functions["text"] = portable.text()
        for name, function in functions.items():
            say(f"Converting {name} to {row.title} ...")
            place, own = unfinished / row.file.format(name), examples if name == "vision" else ()
            write_file(row, function, place, int8, own)
        how = {"int8": int8, "calibrated_on": len(examples)}
        _write_companions(segmenter, unfinished, format, how, functions)
        if check:
            wanted = CALIBRATED_AGREE if examples else 0.99 if int8 else 0.999
            say(_checked(segmenter, row, unfinished, is_open, wanted, examples))
        with suppress(FileNotFoundError):
            target.rmdir()
        unfinished.rename(target)
    except OSError as error:
        raise ExportError(f"{target} cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    say(f"Wrote {target}: {size / 1e6:,.1f} MB in {time.monotonic() - began:.0f} s")
    return target


def check_format(format: str, int8: bool = False, calibrated: bool = False) -> None:
    """Raises ``ExportError`` for a format that there is not, or one without its packages."""
    if format not in FORMATS:
        raise ExportError(f"There is no format {format!r}: choose from {', '.join(FORMATS)}.")
    if calibrated and not int8:
        raise ExportError("Calibration is about 8 bits: ask for int8, or leave it out.")
    row = FORMATS[format]
    needed = row.packages + (row.calibrated_packages if calibrated else row.int8_packages * int8)
    if missing := [package for package in needed if find_spec(package) is None]:
        extras = dict.fromkeys(EXTRAS.get(package, package) for package in missing)
        verb = "is" if len(missing) == 1 else "are"
        bits = " in 8 bits, calibrated," if calibrated else " in 8 bits" * int8
        raise ExportError(
            f"{row.title}{bits} needs {' and '.join(missing)}, which {verb} not installed: pip"
            f" install 'tf-groupvit[{','.join(extras)}]'."
        )


def check_empty(folder: Path) -> None:
    """Raises ``ExportError`` for a folder that holds something already, or a file."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder} holds something already: name a new or empty folder.")


def _check_segmenter(segmenter: "Segmenter", is_open: bool) -> None:
    check_servable(segmenter)
    if segmenter.settings.mode != "whole":
        raise ExportError(
            "Windows differ in number from image to image, which these files cannot hold: export"
            " with mode 'whole'."
        )
    if is_open and segmenter.tokenizer is None:
        raise ExportError("Open classes need a tokenizer, and the segmenter has none: give one.")


def _examples(segmenter: "Segmenter", pictures: Sequence[ImageLike], is_open: bool) -> list[Inputs]:
    """What the vision file is given of these pictures, or of 300 of them at most."""
    texts = {"text_embeds": segmenter.text_embeds} if is_open else {}
    square = segmenter.pipeline.square
    chosen = pictures[:: -(-len(pictures) // MOST_CALIBRATED) or 1]
    return [{"pixels": square(read_image(one))[None], **texts} for one in chosen]


def write_file(
    row: Format, function: Function, file: Path, int8: bool, examples: Examples = ()
) -> None:
    """Convert a function. Raises ``ExportError`` where the converter refuses."""
    try:
        # What converters print for every model; some of it goes to standard output.
        with held_back(), redirect_stdout(sys.stderr):
            row.write(function, file, int8, examples)
    except OSError:
        raise
    except Exception as error:  # each converter has kinds of its own
        named = _named(function, str(error))
        raise ExportError(
            f"{row.title} refuses {file.stem}{named}: {one_line(error, 400)}"
        ) from error


def _named(function: Function, text: str) -> str:
    """The operations of a function that a converter complains about, with where each is first."""
    words, found = set(re.findall(r"\w+", text)), dict[str, str]()
    for operation in function.graph.get_operations():
        if operation.type in words:
            found.setdefault(operation.type, operation.name)
    return f" for {' and '.join(f'{kind} in {name}' for kind, name in found.items())}" * bool(found)


def _write_companions(
    segmenter: "Segmenter",
    folder: Path,
    format: str,
    how: dict[str, Any],
    functions: dict[str, Function],
) -> None:
    row, settings = FORMATS[format], segmenter.settings
    files = {
        name: {
            "file": row.file.format(name),
            "inputs": _described({spec.name: spec for spec in inputs_of(function)}),
            "outputs": _described(function.structured_outputs),
        }
        for name, function in functions.items()
    }
    content = {
        "format": format,
        **how,
        "size": list(settings.size),
        "resize": RESIZE,
        "files": files,
        **(made := provenance(segmenter)),
        "versions": made["versions"] | {name: version(name) for name in row.packages},
    }
    if "text" in functions and segmenter.tokenizer is not None:
        tokenizer = segmenter.tokenizer.limited_to(_context(segmenter))
        tokenizer.save_pretrained(folder)
        content["tokens"] = {
            "start": tokenizer.bos_token_id,
            "end": tokenizer.eos_token_id,
            "pad": tokenizer.pad_token_id,
            "length": tokenizer.max_length,
        }
    colors = MOST_LABELS * ("text" in functions)  # the host may name more classes than there are
    write_tables(folder, {**class_tables(segmenter, colors), "settings.json": content})
    names = ", ".join(segmenter.class_names)
    card = CARD.format(title=row.title, size="x".join(map(str, settings.size)), names=names)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _described(specs: dict[str, tf.TensorSpec]) -> dict[str, Any]:
    return {
        name: {"dtype": spec.dtype.name, "shape": [-1 if n is None else n for n in spec.shape]}
        for name, spec in specs.items()
    }


def _check_text(segmenter: "Segmenter", row: Format, run: Run, wanted: float) -> None:
    prompts = [segmenter.classes.templates[0].replace("{}", n) for n in segmenter.classes.names]
    model, tokenizer = segmenter.model, segmenter.tokenizer
    assert tokenizer is not None  # is asked before
    ids = tokenizer.limited_to(_context(segmenter))(prompts, padding="max_length")["input_ids"]
    rows = np.split(ids, len(ids)) if row.batch else [ids]
    found = np.concatenate(
        [run({"input_ids": part.astype("int32")})["text_embeds"] for part in rows]
    )
    expected = encode_prompts(model, tokenizer, prompts)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    alike = float((np.sum(found * expected, axis=1) / lengths).min())
    if alike < wanted:
        raise ExportError(
            f"{row.title} encodes texts with a cosine of {alike:.4f} to the segmenter's: expected"
            f" {wanted:g}."
        )


def _opened(row: Format, file: Path) -> Run:
    """Raises ``ExportError`` where the runtime does not take a file that was just written."""
    try:
        with held_back():
            return row.open(file)
    except Exception as error:  # each runtime has kinds of its own
        raise ExportError(
            f"{row.title} wrote {file.name} and cannot run it: {one_line(error, 400)}"
        ) from error


def _checked(
    segmenter: "Segmenter",
    row: Format,
    folder: Path,
    is_open: bool,
    wanted: float,
    examples: Examples,
) -> str:
    """Run the files on pictures, one at a time and, where the format can, all at once."""
    run = _opened(row, folder / row.file.format("vision"))
    square = segmenter.pipeline.square
    squares = np.stack([square(picture(number)) for number in range(CHECKED)])
    if examples:  # whose ranges are those of such pictures
        squares = np.concatenate([one["pixels"] for one in examples[:CHECKED]])
    expected = np.stack([segmenter(pixels).labels for pixels in squares])
    texts = {}
    if is_open:
        texts = {"text_embeds": segmenter.text_embeds}
        _check_text(segmenter, row, _opened(row, folder / row.file.format("text")), wanted)
    counts = (1,) if row.batch else (1, len(squares))
    for count in counts:
        parts = np.split(squares, len(squares) // count)
        found = np.concatenate([run({"pixels": part, **texts})["labels"] for part in parts])
        share = float((found == expected).mean())
        if share < wanted:
            raise ExportError(
                f"{row.title} gives the labels of the segmenter to {100 * share:.2f}% of the pixels"
                f" at batch {count}: expected {100 * wanted:g}%. Leave 8 bits out, or the check."
            )
    return f"{100 * share:.2f}% of labels agree with the segmenter's"
