"""Read a folder of tokenizer files: vocabulary, merges, special tokens and maximum length.

    tokenizer.json                        vocabulary and merges in one file; taken first
    vocab.json + merges.txt               the same in two
    tokenizer_config.json                 names of the special tokens, model_max_length
    special_tokens_map.json, added_tokens.json   where older folders keep the special tokens
    config.json                           the model's: positions, where nothing else says

Which file wins is what transformers 5 does (``PreTrainedTokenizerBase._from_pretrained``), so that
both give equal ids. It takes vocabulary and merges alone from tokenizer.json, whatever else that
says, so the file is read as JSON: the tokenizers library refuses one with parts that it does not
know.
"""

from collections.abc import Iterable, Mapping
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
Content = dict[str, Any]  # of a JSON file: anything, until it has been checked
ADDED_TOKEN_FIELDS = ("content", "single_word", "lstrip", "rstrip", "normalized")


@dataclass(frozen=True)
class TokenizerFiles:
    """What a tokenizer's folder says, once read.

    Attributes:
        vocabulary: token -> id.
        merges: pairs of tokens, the first first.
        special: bos_token, eos_token, unk_token and pad_token -> the token's text.
        added: tokens that are found in texts as they stand, before any merge; the special ones
            among them.
        max_length: the most tokens of a text, start and end included.
        settings: tokenizer_config.json, unknown keys included.
    """

    vocabulary: dict[str, int]
    merges: list[tuple[str, str]]
    special: dict[str, str]
    added: list[AddedToken]
    max_length: int
    settings: dict[str, Any]


def read_folder(folder: str | Path) -> TokenizerFiles:
    """Read a tokenizer's folder.

    Raises:
        CheckpointError: files are missing or damaged; ConfigError: a length makes no sense.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(
            f"Tokenizer folder {folder} is not a directory: give a folder with tokenizer.json."
        )
    whole = _read_json(folder / "tokenizer.json")
    settings = _read_json(folder / "tokenizer_config.json") or {}
    vocabulary, merges = _from_whole(whole, folder) if whole is not None else _from_two(folder)
    named, listed = _named_tokens(folder, settings), _listed_tokens(folder, settings, whole)
    special = _special_texts(named, vocabulary.keys() | {token.content for token in listed}, folder)
    added = _all_added(special, named, listed)
    max_length = _max_length(folder, settings)
    return TokenizerFiles(vocabulary, merges, special, added, max_length, settings)


def _read_json(file: Path, error: type[GroupViTError] = CheckpointError) -> dict[str, Any] | None:
    """The object in a JSON file, or None where there is no such file."""
    return files.read_json(file, error) if file.exists() else None


# ---- vocabulary and merges ----


def _from_whole(
    whole: Mapping[str, object], folder: Path
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
    pairs = [_pair(merge, file, number) for number, merge in enumerate(merges, 1)]
    return _checked_vocabulary(model.get("vocab"), file), pairs


def _from_two(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    vocab_file, merges_file = folder / "vocab.json", folder / "merges.txt"
    vocabulary = _read_json(vocab_file)
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
        _pair(line, merges_file, number)
        for number, line in enumerate(lines, 1)
        if line and not line.startswith("#version")
    ]
    return _checked_vocabulary(vocabulary, vocab_file), pairs


def _pair(merge: object, file: Path, number: int) -> tuple[str, str]:
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if isinstance(parts, list) and len(parts) == 2:
        left, right = parts
        if isinstance(left, str) and isinstance(right, str) and left and right:
            return left, right
    raise CheckpointError(
        f"{file}: merge {number} should be two tokens, got {merge!r}: fetch the file again."
    )


def _checked_vocabulary(vocabulary: object, file: Path) -> dict[str, int]:
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


def _added_token(value: object, where: str, special: bool = True) -> AddedToken:
    """An added token from its text or from the fields that the files write."""
    if isinstance(value, str) and value:
        return AddedToken(value, special=special, normalized=not special)
    if isinstance(value, dict) and isinstance(value.get("content"), str) and value["content"]:
        fields = {name: value[name] for name in ADDED_TOKEN_FIELDS if name in value}
        return AddedToken(**fields, special=bool(value.get("special", special)))
    raise CheckpointError(
        f"{where} should be a token or a token's fields, got {value!r}: fetch the file again."
    )


def token_fields(token: AddedToken) -> dict[str, Any]:
    """An added token as the files write it."""
    return {name: getattr(token, name) for name in (*ADDED_TOKEN_FIELDS, "special")}


def _named_tokens(folder: Path, settings: Mapping[str, object]) -> dict[str, AddedToken]:
    """bos_token, eos_token, ... as far as the folder names them."""
    named = dict(settings)
    # Parity: the older file counts only where the newer list is missing.
    if "added_tokens_decoder" not in settings:
        named |= _read_json(folder / "special_tokens_map.json") or {}
    return {
        name: _added_token(named[name], f"{folder}: {name}")
        for name in DEFAULT_SPECIAL
        if named.get(name)
    }


def _listed_tokens(folder: Path, settings: Content, whole: Content | None) -> list[AddedToken]:
    """Tokens that the folder lists with their ids, by id, and the extra ones."""
    try:
        if "added_tokens_decoder" in settings:
            listed = [*settings["added_tokens_decoder"].items()]
        else:
            older = _read_json(folder / "added_tokens.json") or {}
            listed = [(number, text) for text, number in older.items()]
            listed += [(fields["id"], fields) for fields in (whole or {}).get("added_tokens") or []]
        by_id = {
            int(number): _added_token(token, f"{folder}: added token {number}", special=False)
            for number, token in listed
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder}: the list of added tokens is damaged ({error!r}): fetch it again."
        ) from error
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    values: Iterable[object] = extra.values() if isinstance(extra, dict) else extra
    tokens = [_added_token(value, f"{folder}: extra special token") for value in values]
    return [by_id[number] for number in sorted(by_id)] + tokens


def _special_texts(named: dict[str, AddedToken], known: set[str], folder: Path) -> dict[str, str]:
    """The text of each special token.

    An unnamed unknown or padding token that is in no file is the end token.
    """
    special = {
        name: named[name].content if name in named else text
        for name, text in DEFAULT_SPECIAL.items()
    }
    unknown = [name for name in special if name not in named and special[name] not in known]
    for name in unknown:
        if name in ("bos_token", "eos_token"):
            raise CheckpointError(
                f"{folder} names no {name} and has no {special[name]!r}: name it in"
                " tokenizer_config.json."
            )
        special[name] = special["eos_token"]
    return special


def _all_added(
    special: dict[str, str], named: dict[str, AddedToken], listed: Iterable[AddedToken]
) -> list[AddedToken]:
    """Listed tokens first, then the special ones that no list holds; every one once."""
    by_text = {token.content: token for token in listed}
    for name, text in special.items():
        by_text.setdefault(text, named.get(name, AddedToken(text, special=True, normalized=False)))
        by_text[text].special = True
    return list(by_text.values())


# ---- maximum length ----


def _max_length(folder: Path, settings: Mapping[str, object]) -> int:
    """model_max_length of the tokenizer's file, else max_position_embeddings of the model's."""
    name, length = "model_max_length", settings.get("model_max_length")
    if length is not None and not (isinstance(length, (int, float)) and length > UNSET_ABOVE):
        return _checked_length(length, folder / "tokenizer_config.json", name)
    config = _read_json(folder / "config.json", ConfigError) or {}
    # A joint config keeps it under text_config; files of 2022 under text_config_dict, which wins in
    # transformers.
    for part in (config.get("text_config_dict"), config.get("text_config"), config):
        name = "max_position_embeddings"
        if isinstance(part, dict) and part.get(name) is not None:
            return _checked_length(part[name], folder / "config.json", name)
    return DEFAULT_MAX_LENGTH


def _checked_length(length: object, file: Path, name: str) -> int:
    if (
        isinstance(length, (int, float))
        and not isinstance(length, bool)
        and float(length).is_integer()
        and length >= 2
    ):
        return int(length)
    raise ConfigError(
        f"{file}: {name} should be a whole number from 2 (start and end token), got {length!r}."
    )
