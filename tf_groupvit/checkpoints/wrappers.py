"""Weights as training tools save them: containers are opened, prefixes of wrappers removed.

Training tools save a model inside others (DistributedDataParallel, torch.compile, Lightning, PEFT,
averaged weights), and its state dict together with an optimizer's. Notes, one line each, name what
was removed or left out.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tf_groupvit.checkpoints.tensors import Entry, Tensors, collect
from tf_groupvit.errors import CheckpointError

TOWERS = "text_model|vision_model|img_encoder|text_encoder"
# The words that a name of GroupViT begins with, ours or the original's, after any prefix.
OWN = re.compile(
    rf"(?:(?P<prefix>.*?)\.)?(?P<own>(?:{TOWERS}|text_projection|visual_projection|img_projector"
    r"|text_projector)\..+|(?:multi_label_)?logit_scale)"
)
# Wrappers that may stand anywhere in a name; no name of GroupViT has these words.
INSIDE = {"module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"}
ADAPTER = re.compile(
    r"\.(lora_(A|B|embedding_A|embedding_B|magnitude_vector)|base_layer|modules_to_save)(\.|$)"
)
# Where training files usually keep the weights; others are named in a note.
USUAL = ("model", "state_dict", "model_state_dict")
DEEPEST = 3  # containers in containers
MOST_SHOWN = 5

IsTensor = Callable[[object], bool]


def _listed(names: Iterable[str]) -> str:
    first = [name[:80] for name in names]
    return ", ".join(first[:MOST_SHOWN] + ["..."] * (len(first) > MOST_SHOWN))


# ---- Containers ----


def state_dict_of(
    source: object, found: object, is_tensor: IsTensor
) -> tuple[dict[str, Any], str | None]:
    """The one dict of tensors in an unpickled object, and a note where it has an unusual name.

    It is the object itself, or a dict in it, optimizers aside. Where there are several, those with
    names of GroupViT count. Errors: CheckpointError for none, and for several that could be meant.
    """
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{source} holds no dict of tensors: expected a state dict, got a"
            f" {type(found).__name__}."
        )
    states = dict(_state_dicts(found, is_tensor, (), set()))
    fitting = {place: state for place, state in states.items() if any(map(OWN.fullmatch, state))}
    states = fitting or states
    if not states:
        raise CheckpointError(f"{source} is no state dict: {_other(found, is_tensor)}.")
    if len(states) > 1:
        sizes = [(place, len(state)) for place, state in list(states.items())[:MOST_SHOWN]]
        listed = ", ".join(f"'{_dotted(place)}' ({size} tensors)" for place, size in sizes)
        keys = "".join(f"[{key[:80]!r}]" for key in sizes[0][0])
        raise CheckpointError(
            f"{source} holds {len(states)} state dicts, {listed}: expected one. Save the one that"
            f" you want alone, e.g. torch.save(torch.load(file){keys}, 'weights.pth')."
        )
    ((place, state),) = states.items()
    usual = not place or (len(place) == 1 and place[0] in USUAL)
    return state, None if usual else f"The weights under '{_dotted(place)}' were taken."


def _state_dicts(
    found: dict[Any, Any], is_tensor: IsTensor, place: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Keys that lead there -> dict of tensors alone, in ``found`` and what it holds.

    Each dict is visited once.
    """
    seen.add(id(found))
    if found and all(isinstance(name, str) and is_tensor(value) for name, value in found.items()):
        yield place, found
    elif len(place) < DEEPEST:
        for name, value in found.items():
            inner = isinstance(name, str) and isinstance(value, dict) and id(value) not in seen
            if inner and not name.startswith("optim"):
                yield from _state_dicts(value, is_tensor, (*place, name), seen)


def _dotted(place: tuple[str, ...]) -> str:
    return ".".join(key[:80] for key in place)


def _other(found: dict[Any, Any], is_tensor: IsTensor) -> str:
    """What there is in place of tensors, in the dict that was most likely meant."""
    inner = next((found[name] for name in USUAL if isinstance(found.get(name), dict)), found)
    if not inner:
        return "it is empty"
    others = sorted(str(name)[:80] for name, value in inner.items() if not is_tensor(value))
    return (
        "expected tensors alone, named by text, got something else for"
        f" {_listed(others or map(str, inner))}"
    )


# ---- Prefixes ----


def unwrap(source: object, tensors: Tensors) -> tuple[Tensors, tuple[str, ...]]:
    """The tensors without the prefix that the model's names share, and notes on what was removed.

    Names of transformers' TensorFlow class (with slashes) stay as they are, and so do all where
    none is GroupViT's. Errors: CheckpointError for LoRA weights that are not merged, and for
    several models, each with a prefix of its own.
    """
    entries = tensors.entries()
    if any("/" in name or ":" in name for name in entries):
        return tensors, ()
    adapter = next((name for name in entries if ADAPTER.search(name)), None)
    if adapter is not None:
        raise CheckpointError(
            f"{source} holds LoRA weights of PEFT that are not merged into the model"
            f" ('{adapter[:120]}'): call merge_and_unload() on the PEFT model, save what it"
            " returns, and give that."
        )
    matches = {name: match for name in entries if (match := OWN.fullmatch(name))}
    if not matches:
        return tensors, ()
    prefixes = _prefixes(source, matches.values())
    kept: list[tuple[str, Entry]] = []
    outside: list[str] = []
    inside = Counter[str]()
    for name, entry in entries.items():
        own = _own_name(name, matches.get(name), prefixes)
        if own is None:
            outside.append(name)
            continue
        words = own.split(".")
        inside.update(INSIDE.intersection(words))
        kept.append((".".join(word for word in words if word not in INSIDE), entry))
    return Tensors(collect(kept)), tuple(_notes(prefixes, len(kept), inside, outside))


def _prefixes(source: object, matches: Iterable[re.Match[str]]) -> set[str]:
    """The prefixes of one model, as the names have them: they differ in INSIDE words at most."""
    models: dict[str, set[str]] = {}
    sizes, towers = Counter[str](), set()
    for match in matches:
        prefix = match["prefix"] or ""
        plain = ".".join(word for word in prefix.split(".") if word not in INSIDE)
        models.setdefault(plain, set()).add(prefix)
        sizes[plain] += 1
        if re.match(TOWERS, match["own"]):
            towers.add(plain)
    if len(towers) > 1:
        listed = ", ".join(
            f"'{plain}.'" if plain else "no prefix" for plain in sorted(towers)[:MOST_SHOWN]
        )
        raise CheckpointError(
            f"{source} holds {len(towers)} models, their names under {listed}: expected one. "
            "Save the one that you want alone."
        )
    return models[next(iter(towers), sizes.most_common(1)[0][0])]


def _own_name(name: str, match: re.Match[str] | None, prefixes: set[str]) -> str | None:
    """The name without its prefix; None for one that is not the model's."""
    if match is not None and (match["prefix"] or "") in {"", *prefixes}:
        return match["own"]
    if "" in prefixes:
        return name
    prefix = next((prefix for prefix in prefixes if name.startswith(f"{prefix}.")), None)
    return None if prefix is None else name[len(prefix) + 1 :]


def _notes(
    prefixes: set[str], kept: int, inside: Mapping[str, int], outside: list[str]
) -> Iterator[str]:
    for prefix in sorted(prefixes - {""}):
        yield f"The prefix '{prefix}.' was removed from the names of {kept} tensors."
    for word, count in sorted(inside.items()):
        yield f"'{word}.' was removed inside the names of {count} tensors."
    if outside:
        yield f"Left out, since they are no part of the model: {_listed(sorted(outside))}."
