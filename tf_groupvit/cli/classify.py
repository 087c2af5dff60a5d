"""`tf-groupvit classify`: images and class names in, a probability for each class out."""

from typing import Any

import click

from tf_groupvit.cli.choices import load_segmenter, recursive_option, segmenter_options

SHOWN = 5  # classes in the line for a person


@click.command(context_settings={"show_default": True})
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@segmenter_options("model", "classes", "templates", "size", "normalize", "runtime")
@recursive_option
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON alone, a list with one object an image."
)
def command(images: tuple[str, ...], recursive: bool, as_json: bool, **choices: Any) -> None:
    """Name the classes in words, get a probability for each of them in each IMAGE.

    An IMAGE is a file, a folder, a pattern, or - for standard input. It is seen whole, uncropped.
    """
    from tf_groupvit.cli.images import find_images, report, source_of

    sources = find_images(images, recursive)
    segmenter = load_segmenter(**choices)

    from tf_groupvit.segmentation.inference import untraced

    def work(index: int, source: str) -> tuple[dict[str, Any], str]:
        with untraced(len(sources) == 1):
            chances = segmenter.classify(source_of(source))
        ranked = sorted(
            zip(segmenter.classes.names, map(float, chances), strict=True),
            key=lambda pair: -pair[1],
        )
        best = ", ".join(f"{name} {chance:.1%}" for name, chance in ranked[:SHOWN])
        return {"image": source, "probabilities": dict(ranked)}, f"{source}: {best}"

    report(sources, work, as_json)
