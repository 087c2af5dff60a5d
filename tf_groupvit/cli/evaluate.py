"""The command `tf-groupvit evaluate`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tf_groupvit.cli.choices import MODE, load_segmenter, segmenter_options
from tf_groupvit.errors import InputError
from tf_groupvit.evaluation.datasets import FolderDataset, OpenedDataset, open_dataset
from tf_groupvit.evaluation.masks import MASK_ORIENTATIONS
from tf_groupvit.files import check_place
from tf_groupvit.preprocessing.image_arrays import STATISTICS

if TYPE_CHECKING:
    from tf_groupvit.segmentation.segmenter import Segmenter


@click.command(name="evaluate")
@click.argument("dataset", metavar="DATASET")
@click.option(
    "--root", metavar="DIR", help="The dataset's folder, or one that holds it under its usual name."
)
@segmenter_options("model", "templates", "protocol", "refine", "runtime")
@click.option(
    "--mode", type=MODE, help="window, as published, or whole.  [default: window; whole for scenes]"
)
@click.option(
    "--background",
    type=float,
    help="Threshold from 0 to 1 in place of the dataset's published one.",
)
@click.option(
    "--calibrate", type=int, metavar="N", help="Choose the background threshold on N images first."
)
@click.option(
    "--normalize",
    type=click.Choice([*STATISTICS, "checkpoint"]),
    help=(
        "Statistics; checkpoint is its own.  [default: imagenet where the checkpoint names CLIP's"
        " statistics, as the published ones do, though they were trained with ImageNet's; else its"
        " own]"
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
    gives top-1 and top-5 of zero-shot classification.

    An image that fails is named, and the rest are measured; the exit code is 2 then.
    """
    if resume is not None:
        check_place(Path(resume))
    opened = open_dataset(dataset, root, seed, count, mask_orientation, size)
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
        names = ", ".join(failure["image"] for failure in content["failures"])
        click.echo(f"Not in the scores, since they failed: {names}", err=True)
        raise click.exceptions.Exit(2)


def _segment(
    opened: OpenedDataset,
    options: dict[str, Any],
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
    return {**scores.to_dict(), **more}, scores.table() + line


def _classify(
    opened: OpenedDataset, options: dict[str, Any], **choices: Any
) -> tuple[dict[str, Any], str]:
    """Evaluate a tree with a folder for each class: what --json prints, and the table."""
    dataset = opened.dataset
    assert isinstance(dataset, FolderDataset)
    for option in ("protocol", "mode", "background", "calibrate", "refine"):
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
