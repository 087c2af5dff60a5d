"""Vocabularies of three shapes, and the full one -> the ids of transformers' CLIPTokenizer,
tests/golden/tokenizer/.

Run with a Python that has transformers: ``python scripts/make_golden/tokenizer.py``. Without the
shared folder ``clip_bpe`` the cases of the full vocabulary are left as they are.
"""

import json
import shutil
import sys
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizerFast

ROOT = Path(__file__).resolve().parents[2]
CLIP_BPE = ROOT.parent / "shared" / "data" / "clip_bpe"

TEXTS = [
    "",
    " ",
    " \t\n\u00a0\u3000 ",
    "a",
    "a photo of a cat.",
    "A PHOTO of a CaT",
    "  many   blanks\tand\nlines\u2003here  ",
    "don't can't they're I've I'm we'll he'd it's 'tis 'sup ''s '",
    "DON'T THEY'RE",
    "it’s a typographic apostrophe",
    "3 dogs, 12345 cats & 3.14 π",
    "①②Ⅷ ½ ٣٤٥ ४५ 𝟘𝟙 ²³",
    "naïve café ÉCOLE über straße STRASSE ẞ",
    "cafe\u0301 e\u0301cole A\u030a",
    "İstanbul ISPARTA ısı i̇",
    "ΟΔΥΣΣΕΥΣ Σίσυφος ς σ ΑΣ",
    "KELVIN \u212a and \u212b and \u2126",
    "漢字 かな カタカナ 한국어 ภาษาไทย हिन्दी العربية עברית",
    "\u1112\u1161\u11ab decomposed hangul",
    "😂😂😂 👩‍👩‍👧‍👦 👍🏽 🇺🇸🇺🇸 ❤️ ☃",
    "zero\u200dwidth\u200bjoiner \ufeff bom \u00adsoft",
    "control \x00\x01\x7f\x85 characters",
    "snake_case camelCase kebab-case path/to/file.jpg a@b.com #tag http://x.y",
    "!!!!!!!! ?????? ...... ------ ______ $$$$ ~~~~ ====",
    "<|startoftext|>",
    "a <|endoftext|> b<|startoftext|>c",
    "<|endoftext|><|endoftext|>'s",
    "<|EndOfText|> and <|STARTOFTEXT|>!! <|endoftext|!",
    "<|ENDOFTEXT|><|ENDOFTEXT|>'s !<|ENDOFTEXT|>",
    "<pad> [PAD] <unk> </s> <s> </w> low</w>",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "lower newer wider lowest low er",
    "word " * 100,
    "x" * 300,
    "\ufffd \ufffe \U0010ffff \ue000 \U000e0041",
    "ﬁ ﬂ ĳ ǆ Ǆ ǅ ﷺ",
    "a photo of a background, dog; grass: sky (blue) [red] {green}",
]

TOY = ["l", "o", "w", "e", "r", "s", "t", "i", "d", "n", "lo", "l</w>", "w</w>", "r</w>", "t</w>", "low</w>", "er</w>",
       "lowest</w>", "newer</w>", "wider", "<unk>", "<|startoftext|>", "<|endoftext|>"]  # fmt: skip
TOY_MERGES = [("l", "o"), ("lo", "w</w>"), ("e", "r</w>")]
CORPUS = [
    "a photo of a cat and a dog",
    "the lowest newer wider tower",
    "don't they're 2024 ÉCOLE über 漢字 😂😂",
    *TEXTS,
]


def main(out: Path) -> None:
    folder = out / "tokenizer"
    shutil.rmtree(folder / "vocabularies", ignore_errors=True)
    for name, write in {"toy": write_toy, "trained": write_trained, "listed": write_listed}.items():
        vocabulary = folder / "vocabularies" / name
        vocabulary.mkdir(parents=True)
        write(vocabulary)
        write_cases(folder / f"{name}.json", vocabulary)
    if CLIP_BPE.exists():
        write_cases(folder / "clip.json", CLIP_BPE)


def write_toy(folder: Path) -> None:
    """Two files and the older special_tokens_map.json; hardly a byte is known; an unknown token of
    its own.
    """
    write_json(folder / "vocab.json", {token: number for number, token in enumerate(TOY)})
    lines = ["#version: 0.2", *(" ".join(pair) for pair in TOY_MERGES)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_json(folder / "special_tokens_map.json", {"unk_token": "<unk>"})


def write_trained(folder: Path) -> None:
    """One tokenizer.json of a few hundred tokens, special tokens first, padding of its own, 16
    positions.
    """
    vocabulary, merges = trained_merges(["<pad>", "<s>", "</s>", "<unk>"])
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    tokenizer = CLIPTokenizerFast(vocab=vocabulary, merges=merges, **special, model_max_length=16)
    tokenizer.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    write_json(folder / "tokenizer_config.json", settings, indent=2)
    whole = json.loads((folder / "tokenizer.json").read_text())
    write_json(folder / "tokenizer.json", whole)


def write_listed(folder: Path) -> None:
    """Added tokens beyond the vocabulary, with their flags, in tokenizer_config.json, as
    transformers 4 wrote them.
    """
    vocabulary, merges = trained_merges(["<|startoftext|>", "<|endoftext|>"])
    size = len(vocabulary)
    write_json(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text(
        "".join(f"{left} {right}\n" for left, right in merges), encoding="utf-8"
    )
    fields = {"lstrip": False, "rstrip": False, "single_word": False}
    added = {
        vocabulary["<|startoftext|>"]: (
            {
                "content": "<|startoftext|>",
                "normalized": True,
                "special": True,
            }
            | fields
        ),
        vocabulary["<|endoftext|>"]: (
            {
                "content": "<|endoftext|>",
                "normalized": False,
                "special": True,
            }
            | fields
        ),
        size: {"content": "[PAD]", "normalized": False, "special": True} | fields,
        size + 1: {"content": "Grass", "normalized": True, "special": False} | fields,
        size + 2: (
            {"content": "[PAD]!", "normalized": False, "special": False} | fields | {"lstrip": True}
        ),
    }
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    settings = special | {
        "pad_token": "[PAD]",
        "added_tokens_decoder": added,
        "model_max_length": 1e30,
    }
    write_json(folder / "tokenizer_config.json", settings, indent=2)
    write_json(
        folder / "config.json",
        {"model_type": "groupvit", "text_config": {"max_position_embeddings": 24}},
    )


def trained_merges(special: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges learned from CORPUS: all bytes, inside a word and at its end, and 90
    merges.
    """
    model = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    model.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(False)]
    )
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    model.train_from_iterator([text.lower() for text in CORPUS for _ in range(3)], trainer)
    pairs = [tuple(merge) for merge in json.loads(model.to_str())["model"]["merges"]][:90]
    tokens = [
        *special,
        *letters,
        *(letter + "</w>" for letter in letters),
        *(left + right for left, right in pairs),
    ]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}, pairs


def write_cases(file: Path, vocabulary: Path) -> None:
    tokenizer = CLIPTokenizerFast.from_pretrained(vocabulary)
    length = {"trained": 16, "listed": 24}.get(vocabulary.name, 77)
    ids = [tokenizer(text, truncation=True, max_length=length)["input_ids"] for text in TEXTS]
    batch = tokenizer(TEXTS[:8], padding="max_length", truncation=True, max_length=12)
    write_json(file, {
        "special": [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id],
        "length": length,
        "texts": TEXTS,
        "ids": ids,
        "decoded": [tokenizer.decode(row) for row in ids],
        "decoded_without_special": [tokenizer.decode(row, skip_special_tokens=True) for row in ids],
        "padded_to_12": {name: batch[name] for name in ("input_ids", "attention_mask")},
    })  # fmt: skip


def write_json(file: Path, value: object, indent: int | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, ensure_ascii=True, indent=indent) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests" / "golden")
