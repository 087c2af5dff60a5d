"""The command `tf-groupvit annotate`."""

import json
import sys
from contextlib import redirect_stdout
from functools import partial
from importlib.util import find_spec
from typing import Any

import click

from tf_groupvit.cli.choices import (
    OPTIONS,
    class_list,
    load_segmenter,
    recursive_option,
    segmenter_options,
)
from tf_groupvit.errors import InputError
from tf_groupvit.segmentation.class_names import parse_classes

ENGINES = ("local", "ray")  # those of annotation.run, which --help does not load
FORMATS = (  # those of annotation.formats, which --help does not load
    "coco",
    "coco-polygons",
    "coco-panoptic",
    "png",
    "voc",
    "labelme",
    "cvat",
    "yolo",
    "label-studio",
    "label-studio-brush",
    "parquet",
)
OF_RUN = (  # options that are arguments of run.annotate
    "format",
    "ignore_below",
    "retry_failed",
    "tolerance",
    "minimum_area",
    "with_pictures",
    "picture_url",
    "batch_size",
    "seed",
    "engine",
    "workers",
    "ray_address",
)
UNCHECKED = ("retry_failed", "seed")  # any value will do
MOST_NAMED = 20  # sources and pictures that could not be found, on standard error
NEEDED = {"annotate": ("pyarrow", "pycocotools"), "ray": ("ray",)}  # by extras


@click.command(context_settings={"show_default": True})
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@segmenter_options(*OPTIONS)
@click.option("--output", required=True, metavar="DIR_OR_URL", help="Where the annotations go.")
@click.option(
    "--format",
    default="parquet",
    type=click.Choice(FORMATS),
    help="What else is written of the records, which are Parquet. Another run with another format"
    " takes the records that there are.",
)
@recursive_option
@click.option("--column", metavar="NAME", help="The column of a Parquet file with the pictures.")
@click.option(
    "--ignore-below",
    type=float,
    metavar="SCORE",
    help="Pixels whose best class is ahead of the second by less, from 0 to 1, get the format's"
    " ignore value.",
)
@click.option("--retry-failed", is_flag=True, help="Do what failed in an earlier run again.")
@click.option(
    "--tolerance", type=float, metavar="PIXELS", help="Of polygons; 0 is exact.  [default: 0.5]"
)
@click.option(
    "--minimum-area",
    type=int,
    metavar="PIXELS",
    help="Smaller regions get no polygon.  [default: 10]",
)
@click.option(
    "--with-pictures",
    is_flag=True,
    help="Copy the pictures to where voc, yolo and labelme have them.",
)
@click.option(
    "--picture-url",
    metavar="PREFIX",
    help="What a picture's id is put behind for Label Studio, such as s3://bucket/photos/."
    "  [default: /data/local-files/?d=]",
)
@click.option("--batch-size", default=8, help="Pictures that go through the model together.")
@click.option("--seed", default=0, help="Decides which pictures are on the contact sheet.")
@click.option(
    "--engine",
    default="local",
    type=click.Choice(ENGINES),
    help="What it runs on: this process, or workers on a Ray cluster, which the extra ray brings.",
)
@click.option(
    "--workers",
    type=int,
    metavar="N",
    help="Processes of the cluster that segment.  [default: one for each machine]",
)
@click.option(
    "--ray-address",
    metavar="ADDRESS",
    help="A cluster that runs. Without it, or RAY_ADDRESS, one is started on this machine.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON alone.")
def command(
    sources: tuple[str, ...],
    output: str,
    recursive: bool,
    column: str | None,
    as_json: bool,
    **choices: Any,
) -> None:
    """Label pictures by the thousand, for tools that people label with.

    A SOURCE is a picture, a folder, a pattern, a list of pictures in a .txt file (or @FILE), a tar
    shard, a Parquet file, or the URL of one (s3://bucket/photos). The same command goes on where
    it was stopped, at any moment; it is refused where classes, model or settings differ from those
    of the folder.

    The folder gets the annotations, manifest.json, errors.jsonl with the pictures that failed,
    review.csv with the least certain pictures first, summary.json, and contact_sheet.jpg with a
    few pictures by chance. The certainty of a pixel is by how much its best class is ahead of the
    second, and of a picture the mean of that; it is not calibrated. Needs the extra annotate:
    pip install 'tf-groupvit[annotate]'.
    """
    _check_extra("annotate")
    if choices["engine"] == "ray":
        _check_extra("ray")
    from tf_groupvit.annotation.manifest import read_manifest
    from tf_groupvit.annotation.run import annotate, check_arguments
    from tf_groupvit.annotation.sources import check_found, find_items
    from tf_groupvit.storage import Output

    read_manifest(Output(output))
    of_run = {name: choices.pop(name) for name in OF_RUN}
    of_run = {name: choice for name, choice in of_run.items() if choice is not None}
    if choices["classes"] is not None:
        choices["classes"] = class_list(choices["classes"])
    names = [names[0] for names in parse_classes(choices["classes"] or ["of the checkpoint"])]
    check_arguments(
        names, output, **{name: one for name, one in of_run.items() if name not in UNCHECKED}
    )
    check_found(partial(find_items, sources, recursive, column), column)
    segmenter = load_segmenter(**choices)

    try:
        with redirect_stdout(sys.stderr):  # Ray says there what its workers suffer
            summary = annotate(
                sources,
                segmenter,
                output,
                recursive=recursive,
                column=column,
                progress=True,
                say=partial(click.echo, err=True),
                **of_run,
            )
    except KeyboardInterrupt:
        click.echo("\n" * sys.stderr.isatty() + "Stopped. The same command goes on.", err=True)
        raise
    _tell(summary, output, as_json)


def _check_extra(extra: str) -> None:
    if missing := [name for name in NEEDED[extra] if find_spec(name) is None]:
        raise InputError(
            f"annotate needs {', '.join(missing)}: pip install 'tf-groupvit[{extra}]'."
        )


def _tell(summary: dict[str, Any], output: str, as_json: bool) -> None:
    """Print the summary; exit code 2 where a picture failed, or a source could not be read."""
    if as_json:
        click.echo(json.dumps(summary, ensure_ascii=False, indent=2))
    else:
        click.echo("\n".join(_lines(summary, output)))
    problems = summary["problems"]
    for problem in problems[:MOST_NAMED]:
        click.echo(f"{problem['source']}: {problem['error']}", err=True)
    if more := len(problems[MOST_NAMED:]):
        click.echo(f"and {more:,} more of that kind, which {output}/errors.jsonl names", err=True)
    for failure in summary["first_errors"]:
        click.echo(f"{failure['id']}: {failure['error']}", err=True)
    if more := summary["failed"] - len(summary["first_errors"]):
        click.echo(f"and {more:,} more, which {output}/errors.jsonl names", err=True)
    if summary["failed"] or summary["problems"]:
        raise click.exceptions.Exit(2)


def _lines(summary: dict[str, Any], output: str) -> list[str]:
    run = summary["run"]
    shares = sorted(run["shares"].items(), key=lambda item: -item[1])
    classes = {one["name"]: one["share"] for one in summary["classes"] if one["pixels"]}
    if summary["ignored_pixels"]:
        classes["(ignored)"] = summary["ignored_pixels"] / summary["pixels"]
    areas = sorted(classes.items(), key=lambda item: -item[1])
    return [
        f"{output}: {summary['done']:,} pictures annotated, {summary['failed']:,} failed",
        f"this run: {run['pictures']:,} pictures in {run['seconds']:,.0f} s,"
        f" {run['pictures_a_second']:.3g} a second;"
        f" {', '.join(f'{name} {100 * share:.0f}%' for name, share in shares)}",
        f"pixels: {', '.join(f'{name} {100 * share:.1f}%' for name, share in areas)}",
    ]
