"""A folder of tokenizer files -> vocabulary, merges, special tokens and maximum length.

    tokenizer.json                        vocabulary and merges in one file; taken first
    vocab.json + merges.txt               the same in two
    tokenizer_config.json                 names of the special tokens, model_max_length
    special_tokens_map.json, added_tokens.json   where older folders keep the special tokens
    config.json                           the model's: positions, where nothing else says

Which file wins is what transformers 5 does (``PreTrainedTokenizerBase._from_pretrained``), so that
both give equal ids.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from tf_groupvit import files
from tf_groupvit.errors import CheckpointError, ConfigError, GroupViTError

END_OF_WORD = "</w>"
DEFAULT_MAX_LENGTH = 77  # positions of every published GroupViT and CLIP text tower
UNSET_ABOVE = 2**31  # transformers writes 1e30 into model_max_length when nobody set it

# Parity: the defaults of transformers' CLIPTokenizer.
DEFAULT_SPECIAL = {
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
}
ADDED_TOKEN_FIELDS = ("content", "single_word", "lstrip", "rstrip", "normalized")


@dataclass(frozen=True)
class TokenizerFiles:
    """What a tokenizer's folder says, once read."""

    vocabulary: dict[str, int]
    merges: list[tuple[str, str]]
    special: dict[str, str]  # bos_token, eos_token, unk_token, pad_token -> the token's text
    added: list[
        AddedToken
    ]  # found in texts as they stand, before any merge; the special ones among them
    max_length: int
    settings: dict[str, Any]  # tokenizer_config.json, unknown keys included


def read_folder(folder: str | Path) -> TokenizerFiles:
    """Read a tokenizer's folder. Raises CheckpointError (missing or damaged files) or ConfigError
    (bad settings).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(
            f"Tokenizer folder {folder} is not a directory: give a folder with tokenizer.json."
        )
    whole = read_json(folder / "tokenizer.json")
    settings = read_json(folder / "tokenizer_config.json") or {}
    vocabulary, merges = _from_whole(whole, folder) if whole is not None else _from_two(folder)
    named, listed = _named_tokens(folder, settings), _listed_tokens(folder, settings, whole)
    special = _special_texts(named, vocabulary.keys() | {token.content for token in listed}, folder)
    return TokenizerFiles(
        vocabulary,
        merges,
        special,
        _all_added(special, named, listed),
        read_max_length(folder, settings),
        settings,
    )


def read_json(file: Path, error: type[GroupViTError] = CheckpointError) -> dict[str, Any] | None:
    """The object in a JSON file, or None where there is no such file."""
    return files.read_json(file, error) if file.exists() else None


# ---- vocabulary and merges ----


def _from_whole(
    whole: dict[str, Any], folder: Path
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    file, model = folder / "tokenizer.json", whole.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        kind = model.get("type") if isinstance(model, dict) else None
        raise CheckpointError(
            f"{file} should hold a byte-pair model ('BPE'), got {kind!r}: GroupViT reads CLIP's."
        )
    merges = model.get("merges")
    if not isinstance(merges, list):
        raise CheckpointError(f"{file} has no list 'merges' in its model: fetch it again.")
    return _checked_vocabulary(model.get("vocab"), file), [
        _pair(merge, file, i) for i, merge in enumerate(merges, 1)
    ]


def _from_two(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    vocab_file, merges_file = folder / "vocab.json", folder / "merges.txt"
    vocabulary = read_json(vocab_file)
    if vocabulary is None or not merges_file.exists():
        there = ", ".join(sorted(file.name for file in folder.iterdir())[:8]) or "nothing"
        raise CheckpointError(
            f"{folder} needs tokenizer.json, or vocab.json and merges.txt; it holds {there}."
        )
    files.refuse_pointer(merges_file, CheckpointError)
    try:
        lines = merges_file.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{merges_file} should be UTF-8 text ({error}): fetch it again."
        ) from error
    pairs = [
        _pair(line, merges_file, number) for number, line in enumerate(lines, 1) if _is_merge(line)
    ]
    return _checked_vocabulary(vocabulary, vocab_file), pairs


def _is_merge(line: str) -> bool:
    return bool(line) and not line.startswith("#version")


def _pair(merge: Any, file: Path, number: int) -> tuple[str, str]:
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if (
        not isinstance(parts, list)
        or len(parts) != 2
        or not all(isinstance(part, str) and part for part in parts)
    ):
        raise CheckpointError(
            f"{file}: merge {number} should be two tokens, got {merge!r}: fetch the file again."
        )
    return parts[0], parts[1]


def _checked_vocabulary(vocabulary: Any, file: Path) -> dict[str, int]:
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise CheckpointError(
            f"{file} should map tokens to ids, got {type(vocabulary).__name__} or nothing."
        )
    for token, number in vocabulary.items():
        if type(number) is not int or not 0 <= number < 2**31:
            raise CheckpointError(
                f"{file}: the id of {token!r} should be a whole number from 0, got {number!r}."
            )
    if len(set(vocabulary.values())) != len(vocabulary):
        raise CheckpointError(f"{file} gives two tokens the same id: fetch it again.")
    if not any(token.endswith(END_OF_WORD) for token in vocabulary):
        raise CheckpointError(
            f"{file} has no token that ends in {END_OF_WORD!r}, so it is not a CLIP vocabulary."
        )
    return vocabulary


# ---- special tokens ----


def _added_token(value: Any, where: str, special: bool = True) -> AddedToken:
    """An added token from its text or from the fields that the files write."""
    if isinstance(value, str) and value:
        return AddedToken(value, special=special, normalized=not special)
    if (
        not isinstance(value, dict)
        or not isinstance(value.get("content"), str)
        or not value["content"]
    ):
        raise CheckpointError(
            f"{where} should be a token or a token's fields, got {value!r}: fetch the file again."
        )
    fields = {name: value[name] for name in ADDED_TOKEN_FIELDS if name in value}
    return AddedToken(**fields, special=bool(value.get("special", special)))


def token_fields(token: AddedToken) -> dict[str, Any]:
    """An added token as the files write it."""
    return {name: getattr(token, name) for name in (*ADDED_TOKEN_FIELDS, "special")}


def _named_tokens(folder: Path, settings: dict[str, Any]) -> dict[str, AddedToken]:
    """bos_token, eos_token, ... as far as the folder names them."""
    named = dict(settings)
    if (
        "added_tokens_decoder" not in settings
    ):  # Parity: the older file counts only where the newer list is missing
        named |= read_json(folder / "special_tokens_map.json") or {}
    return {
        name: _added_token(named[name], f"{folder}: {name}")
        for name in DEFAULT_SPECIAL
        if named.get(name)
    }


def _listed_tokens(
    folder: Path, settings: dict[str, Any], whole: dict[str, Any] | None
) -> list[AddedToken]:
    """Tokens that the folder lists with their ids, by id."""
    by_id: dict[int, AddedToken] = {}
    try:
        if "added_tokens_decoder" in settings:
            for number, fields in settings["added_tokens_decoder"].items():
                by_id[int(number)] = _added_token(
                    fields, f"{folder}: added token {number}", special=False
                )
        else:
            for text, number in (read_json(folder / "added_tokens.json") or {}).items():
                by_id[int(number)] = _added_token(
                    text, f"{folder}: added token {number}", special=False
                )
            for fields in (whole or {}).get("added_tokens") or []:
                by_id[int(fields["id"])] = _added_token(
                    fields, f"{folder}: added token", special=False
                )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder}: the list of added tokens is damaged ({error!r}): fetch it again."
        ) from error
    return [by_id[number] for number in sorted(by_id)] + _extra_tokens(folder, settings)


def _extra_tokens(folder: Path, settings: dict[str, Any]) -> list[AddedToken]:
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    values: Iterable[Any] = extra.values() if isinstance(extra, dict) else extra
    return [_added_token(value, f"{folder}: extra special token") for value in values]


def _special_texts(named: dict[str, AddedToken], known: set[str], folder: Path) -> dict[str, str]:
    """The text of each special token; an unnamed unknown or padding token that is in no file is the
    end token.
    """
    special = {
        name: named[name].content if name in named else text
        for name, text in DEFAULT_SPECIAL.items()
    }
    for name in ("bos_token", "eos_token"):
        if name not in named and special[name] not in known:
            raise CheckpointError(
                f"{folder} names no {name} and has no {special[name]!r}: name it in"
                " tokenizer_config.json."
            )
    for name in ("unk_token", "pad_token"):
        if name not in named and special[name] not in known:
            special[name] = special["eos_token"]
    return special


def _all_added(
    special: dict[str, str], named: dict[str, AddedToken], listed: Iterable[AddedToken]
) -> list[AddedToken]:
    """Listed tokens first, then the special ones that no list holds; every one once."""
    by_text = {token.content: token for token in listed}
    for name, text in special.items():
        by_text.setdefault(text, named.get(name, AddedToken(text, special=True, normalized=False)))
    for text in special.values():
        by_text[text].special = True
    return list(by_text.values())


# ---- maximum length ----


def read_max_length(folder: Path, settings: dict[str, Any]) -> int:
    """model_max_length of tokenizer_config.json, else max_position_embeddings of config.json, else
    77.
    """
    length = settings.get("model_max_length")
    if length is not None and not (isinstance(length, (int, float)) and length > UNSET_ABOVE):
        return _checked_length(length, folder / "tokenizer_config.json", "model_max_length")
    config = read_json(folder / "config.json", ConfigError) or {}
    # A joint config keeps it under text_config; files of 2022 under text_config_dict, which wins in
    # transformers.
    for part in (config.get("text_config_dict"), config.get("text_config"), config):
        if isinstance(part, dict) and part.get("max_position_embeddings") is not None:
            return _checked_length(
                part["max_position_embeddings"], folder / "config.json", "max_position_embeddings"
            )
    return DEFAULT_MAX_LENGTH


def _checked_length(length: Any, file: Path, name: str) -> int:
    if (
        isinstance(length, bool)
        or not isinstance(length, (int, float))
        or length != int(length)
        or length < 2
    ):
        raise ConfigError(
            f"{file}: {name} should be a whole number from 2 (start and end token), got {length!r}."
        )
    return int(length)
