"""tf-groupvit evaluate: a dataset and a model in, mIoU and IoU by class (or top-1 and top-5) out."""

import json
import sys
from typing import Any

import click

from tf_groupvit.cli.choices import load_segmenter, segmenter_options
from tf_groupvit.errors import InputError


@click.command(name="evaluate")
@click.argument("dataset", metavar="DATASET")
@click.option(
    "--root", metavar="DIR", help="The dataset's folder, or one that holds it under its usual name."
)
@segmenter_options("model", "templates", "runtime")
@click.option(
    "--protocol",
    help="paper, the published inference, or hf, transformers' logits.  [default: paper]",
)
@click.option("--mode", help="window, as published, or whole.  [default: window; whole for scenes]")
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
    type=click.Choice(["imagenet", "clip", "checkpoint"]),
    help=(
        "Statistics; checkpoint is its own.  [default: imagenet where the checkpoint names CLIP's"
        " statistics, as the published ones do, though they were trained with ImageNet's; else its"
        " own]"
    ),
)
@click.option(
    "--mask-orientation",
    type=click.Choice(["as-photo", "as-stored"]),
    help=(
        "How masks lie beside photos that EXIF turns: as-photo, as a person sees the photo;"
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
@click.option("--json", "as_json", is_flag=True, help="Print JSON alone.")
def command(
    dataset: str,
    root: str | None,
    seed: int | None,
    count: int | None,
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
    from pathlib import Path

    from tf_groupvit.evaluation.classification import FolderDataset
    from tf_groupvit.evaluation.opening import open_dataset
    from tf_groupvit.files import check_place

    if resume is not None:
        check_place(Path(resume))
    opened = open_dataset(dataset, root, seed, count, mask_orientation)
    options = {"limit": limit, "state": resume, "progress": sys.stderr.isatty()}
    work = _classify if isinstance(opened.dataset, FolderDataset) else _segment
    try:
        content, table = work(opened, options, **choices)
    except KeyboardInterrupt:
        kept = resume is not None and Path(resume).exists()
        told = (
            f"What was counted is kept in {resume}: the same command goes on from there."
            if kept
            else (
                "Nothing is kept: with --resume FILE, the same command goes on where it was"
                " stopped."
            )
        )
        click.echo(f"Stopped. {told}", err=True)
        raise
    click.echo(json.dumps(content, ensure_ascii=False, indent=2) if as_json else table)
    if content["failures"]:
        names = ", ".join(failure["image"] for failure in content["failures"])
        click.echo(f"Not in the scores, since they failed: {names}", err=True)
        raise click.exceptions.Exit(2)


def _segment(opened: Any, options: dict[str, Any], **choices: Any) -> tuple[dict[str, Any], str]:
    """Evaluate a dataset with masks: what --json prints, and the table."""
    name, published = opened.dataset.name, opened.background
    count = choices.pop("calibrate")
    if published is None and (count is not None or choices["background"] is not None):
        raise InputError(f"{name} has no background: leave --background and --calibrate out.")
    if count is not None and choices["background"] is not None:
        raise InputError(
            "--calibrate chooses the threshold that --background gives: take one of them."
        )
    choices["mode"] = choices["mode"] or opened.mode
    choices["protocol"] = choices["protocol"] or "paper"
    choices["background"] = published if choices["background"] is None else choices["background"]
    segmenter, settings = _loaded(opened, choices)
    from tf_groupvit.evaluation.calibration import calibrate
    from tf_groupvit.evaluation.evaluator import evaluate

    calibration = None
    if count is not None:
        calibration = calibrate(segmenter, opened.dataset, count, progress=options["progress"])
        segmenter = segmenter.with_background(calibration.background)
    kept = {key: choices[key] for key in ("protocol", "mode")}
    settings = {**settings, **kept, "background": segmenter.settings.background}
    scores = evaluate(segmenter, opened.dataset, settings=settings, **options)
    content, table = _told(scores, choices, options), scores.table()
    if calibration:
        content["calibration"] = calibration.to_dict()
        table += (
            f"\nbackground {calibration.background:g}, calibrated on {calibration.images} of the"
            " images"
        )
    return content, table


def _classify(opened: Any, options: dict[str, Any], **choices: Any) -> tuple[dict[str, Any], str]:
    """Evaluate a tree with a folder for each class: what --json prints, and the table."""
    for option in ("protocol", "mode", "background", "calibrate"):
        if choices.pop(option) is not None:
            raise InputError(f"--{option} is about masks, and folder is classified: leave it out.")
    segmenter, settings = _loaded(opened, choices)
    from tf_groupvit.evaluation.classification import evaluate_classes

    scores = evaluate_classes(segmenter.classify, opened.dataset, settings=settings, **options)
    return _told(scores, choices, options), scores.table()


def _loaded(opened: Any, choices: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The segmenter for a dataset's classes, and what its scores depend on."""
    from tf_groupvit.evaluation.rounds import fingerprint

    chosen = choices["normalize"]
    named = None if chosen == "checkpoint" else chosen
    photos = opened.dataset.name != "scenes"  # drawn ones are what the demo checkpoint knows
    segmenter = load_segmenter(
        photos=photos, **{**choices, "classes": list(opened.prompts), "normalize": named}
    )
    if chosen is None and choices["model"] and opened.dataset.name != "scenes":
        segmenter, chosen = _as_trained(segmenter)
    settings = {
        "templates": list(segmenter.classes.templates),
        "normalize": chosen or "checkpoint",
        "weights": fingerprint(segmenter.model),
    }
    return segmenter, settings


def _as_trained(segmenter: Any) -> tuple[Any, str | None]:
    """The segmenter with ImageNet's statistics, where the checkpoint names CLIP's, as the published
    ones do.
    """
    from tf_groupvit.preprocessing.image_arrays import STATISTICS

    mean, std = STATISTICS["clip"]
    own = [*segmenter.processor.mean, *segmenter.processor.std]
    if any(abs(ours - clips) > 1e-6 for ours, clips in zip(own, (*mean, *std), strict=True)):
        return segmenter, None
    return segmenter.with_choices(normalize="imagenet"), "imagenet"


def _told(scores: Any, choices: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    content = scores.to_dict()
    content["settings"] = {
        "model": choices["model"] or "demo",
        "limit": options["limit"],
        **content["settings"],
    }
    return content
