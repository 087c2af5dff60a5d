"""The command `tf-groupvit info`, which loads no TensorFlow."""

import json
from typing import Any

import click

PARTS = {
    "text_model": "text tower",
    "vision_model": "vision tower",
    "text_projection": "text projection",
    "visual_projection": "visual projection",
    "logit_scale": "logit scale",
    "other": "unknown tensors",
}


@click.command("info")
@click.argument("folder", metavar="FOLDER")
@click.option("--json", "as_json", is_flag=True, help="Print JSON alone, the whole config in it.")
def command(folder: str, as_json: bool) -> None:
    """Sizes, config and parameter counts of a checkpoint.

    FOLDER is a folder, a file of weights or a hub id, as for convert. Parameters are what training
    changes; the statistics of batch norms are not counted.
    """
    from tf_groupvit.checkpoints.description import describe
    from tf_groupvit.hub import resolve

    found = describe(resolve(folder))
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
        return
    rows = [
        *_file_rows(found),
        *_parameter_rows(found["parameters"]),
        *_config_rows(found["config"]),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:{width}}  {value}")
    for note in found["notes"]:
        click.echo(f"Note: {note}")


def _file_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    dtypes = ", ".join(found["dtypes"])
    return [
        ("weights", found["source"]),
        ("format", found["format"]),
        ("size", f"{found['tensors']} tensors, {_in_bytes(found['bytes'])} of {dtypes}"),
        ("tokenizer", " + ".join(found["tokenizer"]) or "not there"),
        ("preprocessor", "preprocessor_config.json" if found["preprocessor"] else "not there"),
    ]


def _in_bytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"


def _parameter_rows(parameters: dict[str, int]) -> list[tuple[str, str]]:
    parts = [
        (f"  {title}", f"{parameters[part]:,}")
        for part, title in PARTS.items()
        if part in parameters
    ]
    return [("parameters", f"{parameters['total']:,}"), *parts]


def _config_rows(config: dict[str, Any] | None) -> list[tuple[str, str]]:
    if config is None:
        return [("config", "not there: the published sizes are assumed")]
    sections = {"text": config.get("text_config"), "vision": config.get("vision_config")}
    kind = config["model_type"]
    if kind != "groupvit":
        sections = {"text" if "text" in kind else "vision": config}
    rows = [(name, _TOWER[name](section)) for name, section in sections.items() if section]
    if "projection_dim" in config:
        rows.append(("shared space", f"{config['projection_dim']} dimensions"))
    return rows


def _text(config: dict[str, Any]) -> str:
    return (
        f"{config['num_hidden_layers']} layers, width {config['hidden_size']},"
        f" {config['num_attention_heads']} heads, {config['vocab_size']:,} tokens, texts of up to"
        f" {config['max_position_embeddings']}, end token {config['eos_token_id']}"
    )


def _vision(config: dict[str, Any]) -> str:
    stages = " + ".join(map(str, config["depths"]))
    pairs = zip(config["num_group_tokens"], config["num_output_groups"], strict=True)
    groups = " -> ".join(str(groups) for tokens, groups in pairs if tokens) or "none"
    return (
        f"{stages} layers, width {config['hidden_size']}, {config['num_attention_heads']} heads,"
        f" groups {groups}, images of {_size(config['image_size'])} in patches of"
        f" {_size(config['patch_size'])}"
    )


def _size(size: int | list[int]) -> str:
    height, width = size if isinstance(size, list) else (size, size)
    return f"{height} x {width}"


_TOWER = {"text": _text, "vision": _vision}
