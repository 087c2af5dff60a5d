"""The command `tf-groupvit evaluate`."""

import io
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tf_groupvit.cli.choices import MODE, class_list, load_segmenter, segmenter_options
from tf_groupvit.errors import InputError
from tf_groupvit.evaluation.datasets import (
    OWN,
    FolderDataset,
    OpenedDataset,
    OwnMaskDataset,
    open_dataset,
)
from tf_groupvit.evaluation.masks import MASK_ORIENTATIONS
from tf_groupvit.evaluation.own_masks import NO_MASK, NO_PICTURE, shown
from tf_groupvit.files import atomic_write, check_place
from tf_groupvit.preprocessing.image_arrays import STATISTICS

if TYPE_CHECKING:
    from tf_groupvit.segmentation.segmenter import Segmenter

UNTRIED = 0.5  # the threshold before --calibrate has found one


@click.command(name="evaluate")
@click.argument("dataset", metavar="DATASET")
@click.option(
    "--root", metavar="DIR", help="The dataset's folder, or one that holds it under its usual name."
)
@click.option("--images", metavar="DIR", help="Of masks: the folder of the pictures.")
@click.option(
    "--masks",
    metavar="DIR_OR_FILE",
    help="Of masks: their folder, called like the pictures but for what follows the last dot, or"
    " NAME.labels.png; or COCO annotations, a .json file, of regions or panoptic.",
)
@click.option(
    "--classes",
    help="Of masks: the names in the order of their numbers, separated by commas, or a .txt file"
    " with one class a line; 'sofa|couch' are synonyms. The first is 0; with --background, that is"
    " 0, and the first is 1.",
)
@click.option(
    "--table",
    metavar="FILE",
    help="Of masks: a number and a name a line, CSV, TSV, or annotate's classes.json; or, for masks"
    " of colors, a labelmap.txt, as CVAT's. With --classes, only those count; the others are"
    " background or, without one, ignored.",
)
@click.option(
    "--ignore",
    type=int,
    multiple=True,
    metavar="NUMBER",
    help="Of masks: pixels of this number do not count. May be repeated.  [default: 255;"
    " above 255 classes, 65535]",
)
@segmenter_options("model", "templates", "protocol", "refine", "runtime")
@click.option(
    "--mode",
    type=MODE,
    help="window, as published, or whole.  [default: window; whole, as segment, for scenes and"
    " masks]",
)
@click.option(
    "--background",
    type=float,
    help="Threshold from 0 to 1 in place of the dataset's published one. Of masks: adds the class"
    " background.",
)
@click.option(
    "--calibrate", type=int, metavar="N", help="Choose the background threshold on N images first."
)
@click.option(
    "--normalize",
    type=click.Choice([*STATISTICS, "checkpoint"]),
    help=(
        "Statistics; checkpoint is its own.  [default: imagenet where the checkpoint names CLIP's"
        " statistics, as the published ones do, though they were trained with ImageNet's; else, and"
        " for masks, its own, as segment]"
    ),
)
@click.option(
    "--mask-orientation",
    type=click.Choice(MASK_ORIENTATIONS),
    help=(
        "How masks lie over photos that EXIF turns: as-photo, as a person sees the photo;"
        " as-stored, as the pixels lie in the photo's file, before EXIF turns them. Counts only"
        " where sizes do not tell."
    ),
)
@click.option(
    "--limit",
    type=int,
    metavar="N",
    help="Only N images: the first; of folder, spread over its classes.",
)
@click.option(
    "--resume", metavar="FILE", help="Keep the state here, and go on from it where it exists."
)
@click.option("--seed", type=int, help="Of the scenes.  [default: 0]")
@click.option("--count", type=int, help="How many scenes.  [default: 500]")
@click.option("--size", type=int, help="Side of the scenes in pixels.  [default: 64]")
@click.option(
    "--confusion",
    metavar="FILE.png",
    help="Draw the confusion matrix: what the pixels of each class were taken for.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON alone.")
def command(
    dataset: str,
    root: str | None,
    seed: int | None,
    count: int | None,
    size: int | None,
    mask_orientation: str | None,
    limit: int | None,
    resume: str | None,
    as_json: bool,
    **choices: Any,
) -> None:
    """Measure zero-shot segmentation on DATASET: a table by class, mIoU and pixel accuracy.

    DATASET is voc (21 classes with background), voc20, context (60 with background), context59,
    coco-object (81 with background), coco-stuff (171), ade20k (150), cityscapes (19), or scenes,
    which are drawn and need no --root. DATASET folder is a tree with a folder for each class, and
    gives top-1 and top-5 of zero-shot classification. DATASET masks is pictures and masks of your
    own: --images, --masks and --classes; a picture and its mask have the same path below their
    folders, but for what follows the last dot, or for .labels.png, as segment writes it. Masks are
    PNG (gray of 8 or 16 bits, or palette, as VOC's are), TIFF or BMP with a number for each pixel
    (or, with a labelmap.txt, a color), or COCO annotations, of regions or panoptic, whose PNG lie
    beside the file as COCO's do. What segment, annotate and exports give is measured: their default
    mode and statistics, not the published ones.

    An image that fails is named, and the rest are measured; the exit code is 2 then.
    """
    if resume is not None:
        check_place(Path(resume))
    if (confusion := choices["confusion"]) is not None:
        check_place(Path(confusion))
        if not confusion.lower().endswith(".png"):
            raise InputError(f"--confusion {confusion}: expected the name of a PNG, e.g. c.png.")
    own = {name: choices.pop(name) for name in ("images", "masks", "classes", "table", "ignore")}
    known: dict[str, Any] = {"root": root, "seed": seed, "count": count, "size": size}
    if dataset == OWN:
        _refuse(known, f"does not belong to {OWN}, which --images and --masks find")
        opened = _open_own(own, mask_orientation, choices["background"], choices["calibrate"])
    else:
        _refuse(own, f"belongs to {OWN}, not to {dataset}")
        opened = open_dataset(dataset, mask_orientation=mask_orientation, **known)
    options = {"limit": limit, "state": resume, "progress": sys.stderr.isatty()}
    work = _classify if isinstance(opened.dataset, FolderDataset) else _segment
    try:
        content, table = work(opened, options, **choices)
    except KeyboardInterrupt:
        kept = resume is not None and Path(resume).exists()
        advice = (
            f"What was counted is kept in {resume}: the same command goes on from there."
            if kept
            else "Nothing is kept: with --resume FILE, the same command goes on where it stopped."
        )
        click.echo(f"Stopped. {advice}", err=True)
        raise
    settings = {"model": choices["model"] or "demo", "limit": limit, **content["settings"]}
    content = {**content, "settings": settings}
    click.echo(json.dumps(content, ensure_ascii=False, indent=2) if as_json else table)
    if content["failures"]:
        names = shown([failure["image"] for failure in content["failures"]])
        click.echo(f"Not in the scores, since they failed: {names}", err=True)
        raise click.exceptions.Exit(2)


def _refuse(options: dict[str, Any], why: str) -> None:
    given = next((name for name, value in options.items() if value not in (None, ())), None)
    if given is not None:
        raise InputError(f"--{given} {why}: leave it out.")


def _open_own(
    own: dict[str, Any],
    mask_orientation: str | None,
    background: float | None,
    calibrate: int | None,
) -> OpenedDataset:
    """Pictures and masks of the user's own; what is left out is said on standard error."""
    for name in ("images", "masks"):
        if own[name] is None:
            raise InputError(f"{OWN} need both --images DIR and --masks DIR: --{name} is missing.")
    if own["classes"] is not None:
        own["classes"] = listed = class_list(own["classes"])
        if isinstance(listed, list) and all(re.match(r"\d+\s", name) for name in listed):
            raise InputError(
                "Every class begins with a number: a file of numbers and names is given by --table."
            )
    with_background = background is not None or calibrate is not None
    dataset = OwnMaskDataset(
        **{**own, "ignore": own["ignore"] or None},
        background=with_background,
        mask_orientation=mask_orientation,
    )
    if dataset.numbering.left_out:
        what = "background" if with_background else "ignored"
        click.echo(
            f"Not among the classes, so {what}: {shown(dataset.numbering.left_out)}", err=True
        )
    for what, lack in (
        ("Pictures without a mask", NO_MASK),
        ("Masks without a picture", NO_PICTURE),
    ):
        if names := [name for name, other in dataset.unpaired.items() if other == lack]:
            click.echo(f"{what}, {len(names)} left out: {shown(names)}", err=True)
    threshold = UNTRIED if calibrate is not None else background
    return OpenedDataset(dataset, dataset.prompts, "whole", threshold)


def _segment(
    opened: OpenedDataset,
    options: dict[str, Any],
    confusion: str | None,
    calibrate: int | None,
    background: float | None,
    **choices: Any,
) -> tuple[dict[str, Any], str]:
    """Evaluate a dataset with masks: what --json prints, and the table."""
    dataset = opened.dataset
    assert not isinstance(dataset, FolderDataset)
    if opened.background is None and (calibrate is not None or background is not None):
        raise InputError(
            f"{dataset.name} has no background: leave --background and --calibrate out."
        )
    if calibrate is not None and background is not None:
        raise InputError(
            "--calibrate chooses the threshold that --background gives: take one of them."
        )
    mode = choices.pop("mode") or opened.mode
    background = opened.background if background is None else background
    segmenter, as_trained = _load(opened, mode=mode, background=background, **choices)
    from tf_groupvit.evaluation import calibration
    from tf_groupvit.evaluation.evaluator import evaluate

    more, line = {}, ""
    if calibrate is not None:
        found = calibration.calibrate(
            segmenter,
            dataset,
            calibrate,
            as_trained=as_trained,
            progress=options["progress"],
        )
        segmenter = segmenter.with_background(found.background)
        more = {"calibration": found.to_dict()}
        line = f"\nbackground {found.background:g}, calibrated on {found.images} of the images"
    scores = evaluate(segmenter, dataset, as_trained=as_trained, **options)
    if confusion is not None:
        from tf_groupvit.evaluation.confusion import draw_confusion

        assert scores.counts is not None
        picture = io.BytesIO()
        draw_confusion(scores.counts, dataset.class_names).save(picture, "PNG")
        atomic_write(Path(confusion), picture.getvalue())
    return {**scores.to_dict(), **more}, scores.table() + line


def _classify(
    opened: OpenedDataset, options: dict[str, Any], **choices: Any
) -> tuple[dict[str, Any], str]:
    """Evaluate a tree with a folder for each class: what --json prints, and the table."""
    dataset = opened.dataset
    assert isinstance(dataset, FolderDataset)
    for option in ("protocol", "mode", "background", "calibrate", "refine", "confusion"):
        if choices.pop(option) is not None:
            raise InputError(f"--{option} is about masks, and folder is classified: leave it out.")
    segmenter, as_trained = _load(opened, **choices)
    from tf_groupvit.evaluation.evaluator import evaluate_classes

    scores = evaluate_classes(segmenter, dataset, as_trained=as_trained, **options)
    return scores.to_dict(), scores.table()


def _load(opened: OpenedDataset, normalize: str | None, **choices: Any) -> tuple["Segmenter", bool]:
    """The segmenter for a dataset's classes, and whether ``evaluate`` may change its statistics."""
    photos = opened.dataset.name != "scenes"  # drawn ones are what the demo checkpoint knows
    statistics = None if normalize == "checkpoint" else normalize
    segmenter = load_segmenter(
        photos=photos, classes=list(opened.prompts), normalize=statistics, **choices
    )
    return segmenter, normalize is None
