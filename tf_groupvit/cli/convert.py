"""The command `tf-groupvit convert`."""

import click


@click.command("convert")
@click.argument("source", metavar="SOURCE")
@click.argument("folder", metavar="FOLDER")
@click.option(
    "--tokenizer",
    metavar="FOLDER",
    help="Where the tokenizer files are, unless they are with the source.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace a checkpoint that is in FOLDER; other files in it stay.",
)
def command(source: str, folder: str, tokenizer: str | None, overwrite: bool) -> None:
    """Turn any GroupViT checkpoint into a folder of config.json and model.safetensors.

    SOURCE is a folder, a file of weights (.safetensors, .h5, .bin, the original .pth, a .ckpt of
    training) or a hub id like nvidia/groupvit-gcc-yfcc. What is written to FOLDER, which is made,
    loads here and in transformers. Tokenizer and preprocessor files go along. Weights keep their
    precision.
    """
    click.echo(f"Reading {source} ...", err=True)
    from tf_groupvit.models.conversion import convert

    done = convert(source, folder, tokenizer, overwrite)
    click.echo(
        f"Read {done.source} ({done.format}): {done.tensors} tensors, {done.parameters:,}"
        " parameters"
    )
    for note in done.notes:
        click.echo(f"Note: {note}")
    click.echo(f"Wrote {done.folder}: {', '.join(done.files)}")
    if not {"tokenizer.json", "vocab.json"} & set(done.files):
        click.echo(
            "The checkpoint has no tokenizer: give --tokenizer FOLDER to take one along.", err=True
        )
