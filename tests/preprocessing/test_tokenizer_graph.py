"""The tokenizer as a graph gives the Python tokenizer's ids, for any text and any vocabulary."""

import json
import os
import subprocess
import sys
import time
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tf_groupvit import Tokenizer
from tf_groupvit.errors import InputError
from tf_groupvit.preprocessing.tokenizer_files import TokenizerFiles
from tf_groupvit.preprocessing.tokenizer_graph import CONTEXT
from tf_groupvit.preprocessing.tokenizer_merges import (
    Merges,
    byte_letters,
    merge_ranks,
    merges_are_ordered,
)
from tf_groupvit.preprocessing.tokenizer_unicode import classes, normal_forms

SMALL = ("toy", "trained", "listed")


@pytest.fixture(scope="module")
def pairs(golden):
    """Each small vocabulary as (Python tokenizer, graph)."""
    tokenizers = {
        name: Tokenizer.from_pretrained(golden / "tokenizer" / "vocabularies" / name)
        for name in SMALL
    }
    return {name: (tokenizer, tokenizer.graph()) for name, tokenizer in tokenizers.items()}


@pytest.fixture(scope="module")
def clip(clip_bpe):
    tokenizer = Tokenizer.from_pretrained(clip_bpe)
    return tokenizer, tokenizer.graph()


def assert_equal(pair, texts: list[str]) -> None:
    tokenizer, graph = pair
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of texts that are cut
        expected = tokenizer(texts, padding="max_length")
    got = graph(tf.constant(texts, tf.string))
    for part in ("input_ids", "attention_mask"):
        assert got[part].dtype == tf.int32
        np.testing.assert_array_equal(got[part].numpy(), expected[part], err_msg=repr(texts)[:2000])


def texts_of(path: Path) -> list[str]:
    return json.loads(path.read_text())["texts"]


# ---- equal to the Python side ----


@pytest.mark.parametrize("name", SMALL)
def test_graph_gives_the_ids_of_the_python_tokenizer(pairs, name, golden):
    texts = texts_of(golden / "tokenizer" / f"{name}.json")
    assert_equal(pairs[name], texts)
    for text in texts:
        assert_equal(pairs[name], [text])


def test_graph_gives_the_ids_of_the_full_vocabulary(clip, golden):
    assert_equal(clip, texts_of(golden / "tokenizer" / "clip.json"))


# What the pattern, the normalizer and the added tokens look at, in pieces that land beside each
# other.
PIECES = st.sampled_from(
    ["<|endoftext|>", "<|startoftext|>", "<|ENDOFTEXT|>", "<|StartOfText|>", "<|", "|>", "<", "endoftext", "'", "'s",
     "'S", "'t", "'re", "'LL", "’s", "[PAD]", "[PAD]!", "GRASS", "grass", "</s>", "<s>", " ", "  ", "\n", "\u3000",
     "\x85", "\u200b", "\u200d", "\ufeff", "\x00", "\x1c", "a", "aa", "Low", "er", "ooo", "!!!", "1", "½", "٣", "Ⅷ",
     "𝟘", "Σ", "ΑΣ", "ς", "İ", "ı", "i̇", "ẞ", "é", "한", "漢字", "😂", "😂😂", "👩\u200d👩\u200d👧", "👍🏽", "❤️",
     "\u0301", "\u094d", "\ufffd", "\U0010ffff", "ǅ", "ﬁ", "K", "#", "(", ")", "A", "L", "0"]
)  # fmt: skip
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=8)), max_size=12).map("".join)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=st.lists(TEXTS, max_size=4))
@pytest.mark.parametrize("name", SMALL)
def test_any_text_gets_the_ids_of_the_python_tokenizer(pairs, name, texts):
    assert_equal(pairs[name], texts)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None)
@given(texts=st.lists(TEXTS, max_size=6))
def test_any_text_gets_the_ids_of_the_full_vocabulary(clip, texts):
    assert_equal(clip, texts)


@pytest.mark.slow
def test_every_code_point_is_read_as_in_python(clip):
    everything = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    assigned = [point for point in everything if unicodedata.category(point) not in ("Cn", "Co")]
    points = assigned + everything[::97]
    # Between letters, between digits and beside a sign: the class shows in the pieces that come
    # out.
    texts = [f"{side}{point}{side}" for point in points for side in ("A", "1", "!")]
    tokenizer = clip[0].limited_to(16)
    graph = tokenizer.graph()
    for start in range(0, len(texts), 1 << 18):
        assert_equal((tokenizer, graph), texts[start : start + (1 << 18)])


# ---- texts by hand ----


def test_a_sigma_at_the_end_of_a_word_stays_what_it_is(pairs):
    graph = pairs["trained"][1]
    assert (
        graph(["ΑΣ"])["input_ids"].numpy().tolist() == graph(["ασ"])["input_ids"].numpy().tolist()
    )
    assert (
        graph(["ΑΣ"])["input_ids"].numpy().tolist() != graph(["ας"])["input_ids"].numpy().tolist()
    )


# ---- equivalent spellings ----

# Letters and marks of six scripts, with what composes in unusual ways: Hangul by rule, marks that
# are two, characters that come back as others, those that never come back, vowels that begin anew,
# and marks newer than the library's.
LETTERS_AND_MARKS = st.sampled_from(
    [*"aeiouAEIOUsSzngİıÅǖṩẹ́αωΑΩΐᾂかはハウヴकडड़ஒகெಕೊক가각힣", *"\u1100\u1112\u1161\u1175\u11a7\u11a8\u11c2",
     *"\u212b\u2126\u212a\uf900\U0002f800\u0f43\u0f73\u0344\u0340\u0958\ufb2c\U0001d15e",
     *"\u0ccb\u0cc6\u0cc2\u0cd5\u09c7\u09be\u0bd7\u0301\u0300\u0308\u0304\u0307\u0323\u0327\u0328",
     *"\u0331\u0345\u0313\u0342\u0334\u3099\u309a\u093c\u094d\u05b7\u05bc\u0f71\u0f72\u0f74\u08ce\u1ac5",
     "\u200d", " ", "<|endoftext|>", "[PAD]"]
)  # fmt: skip


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=st.lists(st.lists(LETTERS_AND_MARKS, max_size=14).map("".join), max_size=8))
def test_letters_and_marks_in_any_order_get_the_ids_of_the_python_tokenizer(pairs, texts):
    assert_equal(pairs["listed"], texts)


def test_every_character_that_can_be_spelled_otherwise_is_read_alike(pairs):
    points = [
        chr(point)
        for point in range(0x30000)
        if unicodedata.decomposition(chr(point))[:1] not in ("", "<")
    ]
    points += [chr(point) for point in range(0xAC00, 0xD7A4)]  # Hangul, whose rule is in no table
    apart = [unicodedata.normalize("NFD", point) for point in points]
    assert len(points) > 13_000
    tokenizer, graph = pairs["trained"]
    assert_equal((tokenizer, graph), points + apart)
    whole, parts = (graph(tf.constant(texts))["input_ids"].numpy() for texts in (points, apart))
    differ = [
        point
        for point, *ids in zip(points, whole.tolist(), parts.tolist(), strict=True)
        if ids[0] != ids[1]
    ]
    # Characters that are newer than the library's Unicode, which leaves both spellings as they are.
    assert [point for point in differ if unicodedata.is_normalized("NFC", point)] in (
        [],
        ["\U00011938"],
    )


def test_composed_and_decomposed_words_have_the_ids_of_the_composed(pairs):
    words = [
        "étoile",
        "Ångström",
        "한국어 가방",
        "パンダ",
        "Việt Nam",
        "Ω ΐ",
        "İ",
        "q̣̇",
        "가\u0301",
    ]
    for tokenizer, graph in pairs.values():
        expected = tokenizer.cut([unicodedata.normalize("NFC", word) for word in words])[
            "input_ids"
        ]
        for form in ("NFC", "NFD"):
            spelled = [unicodedata.normalize(form, word) for word in words]
            assert graph(tf.constant(spelled))["input_ids"].numpy().tolist() == expected.tolist(), (
                form
            )


def test_marks_never_reach_another_text(pairs):
    texts = [
        "e",
        "\u0301",
        "",
        "\u0323\u0301",
        "\u1100",
        "\u1161",
        "\u11a8",
        "\u0cc6",
        "\u0cc2",
        "<|endoftext|>\u0301",
    ]
    assert_equal(pairs["trained"], texts)
    assert_equal(pairs["trained"], ["e\u0301" + "\u0345\u0301\u0334" * 40, "\u0301\u0334"])


def test_single_characters_that_have_a_composed_form_get_it(pairs):
    assert_equal(
        pairs["trained"], ["\u212a \u2126 \u212b", "\uf900", "\u0958", "\ufb2c \U0001d160"]
    )


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.lists(
        st.one_of(
            st.binary(max_size=6),
            st.sampled_from([b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"a "]),
        )
    )
)
def test_bytes_that_are_no_utf8_count_as_the_replacement_character(pairs, data):
    tokenizer, graph = pairs["trained"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = tokenizer([b"".join(data).decode("utf-8", "replace")], padding="max_length")[
            "input_ids"
        ]
    np.testing.assert_array_equal(
        graph(tf.constant([b"".join(data)]))["input_ids"].numpy(), expected
    )


# ---- merges ----


@st.composite
def vocabularies(draw, ordered: bool):
    """A small byte-pair vocabulary: letters a, b, c, inside a word and at its end, and merges of
    whatever is there.
    """
    tokens = ["a", "b", "c", "a</w>", "b</w>", "c</w>"]
    merges: list[tuple[str, str]] = []
    for _ in range(draw(st.integers(0, 25))):
        left = draw(st.sampled_from([token for token in tokens if not token.endswith("</w>")]))
        right = draw(st.sampled_from(tokens))
        if (left, right) not in merges and not (ordered and left + right in tokens):
            merges.append((left, right))
            tokens = list(dict.fromkeys([*tokens, left + right]))
    if not ordered:
        merges = draw(st.permutations(merges))
    vocabulary = {
        token: number for number, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])
    }
    special = {"bos_token": "<|startoftext|>"} | dict.fromkeys(
        ("eos_token", "unk_token", "pad_token"), "<|endoftext|>"
    )
    return Tokenizer(TokenizerFiles(vocabulary, merges, special, [], 400, {}))


UNITS = st.tuples(st.text("abc", min_size=1, max_size=4), st.integers(1, 30)).map(
    lambda unit: unit[0] * unit[1]
)
WORDS = st.lists(st.one_of(st.text("abc", min_size=1, max_size=60), UNITS), min_size=1, max_size=6)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(data=st.data(), ordered=st.booleans())
def test_any_vocabulary_merges_as_in_python(tmp_path_factory, data, ordered):
    tokenizer, words = data.draw(vocabularies(ordered)), data.draw(WORDS)
    ids = tokenizer.files.vocabulary
    longest = max(len(token.removesuffix("</w>")) for token in ids if "|" not in token)
    merges = Merges(merge_ranks(tokenizer), longest, tmp_path_factory.mktemp("merges"))
    assert merges.ordered or not ordered
    symbols = [ids[letter] for word in words for letter in [*word[:-1], word[-1] + "</w>"]]
    of_word = [number for number, word in enumerate(words) for _ in word]
    merged, of_merged = merges(tf.constant(symbols, tf.int64), tf.constant(of_word, tf.int64))
    expected = [[token.id for token in tokenizer.backend.model.tokenize(word)] for word in words]
    assert merged.numpy().tolist() == [number for row in expected for number in row]
    assert of_merged.numpy().tolist() == [
        number for number, row in enumerate(expected) for _ in row
    ]


def test_merges_are_ordered_when_each_ranks_after_those_that_make_its_halves():
    assert merges_are_ordered({(0, 1): (0, 3), (3, 2): (1, 4)})
    assert not merges_are_ordered({(3, 2): (0, 4), (0, 1): (1, 3)})
    assert not merges_are_ordered(
        {(0, 1): (0, 3), (3, 2): (1, 4), (5, 6): (2, 3)}
    )  # 3 is made again, after its use


def test_a_long_word_is_merged_as_in_python(clip):
    generator = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(generator.choice(letters, size)) for size in (500, 3000, 20_000)]
    assert_equal(clip, [*words, "a" * 5000, "ab" * 5000, "the" * 3000, "!" * 9000, "😂" * 3000])


@pytest.mark.slow
def test_long_texts_take_time_by_their_length_only(clip):
    graph = clip[1]
    graph(tf.constant(["warm"]))
    start = time.monotonic()
    graph(
        tf.constant(
            [
                "word " * 200_000,
                "x" * 1_000_000,
                " " * 1_000_000,
                "qwertyuiopasdfghjklzxcvbnm" * 40_000,
            ]
        )
    )
    assert time.monotonic() - start < 30  # seconds for 4 MB, on a slow machine


# ---- sizes ----


@pytest.mark.parametrize("N", [0, 1, 3])
def test_every_batch_size_gives_rows_of_the_maximum_length(pairs, N):
    for tokenizer, graph in pairs.values():
        encoded = graph(tf.constant(["low"] * N, tf.string))
        assert (
            encoded["input_ids"].shape
            == encoded["attention_mask"].shape
            == (N, tokenizer.max_length)
        )


@pytest.mark.parametrize("length", [2, 3, 4])
def test_the_end_token_is_kept_at_any_length(golden, length):
    tokenizer = Tokenizer.from_pretrained(
        golden / "tokenizer" / "vocabularies" / "toy", max_length=length
    )
    assert_equal(
        (tokenizer, tokenizer.graph()), ["", "low", "low low low low", "<|endoftext|> low"]
    )


def test_a_row_does_not_depend_on_the_other_rows(pairs):
    texts = ["low", "", "lower newest " * 9, "<|endoftext|>", "x"]
    for _, graph in pairs.values():
        together = graph(texts)["input_ids"].numpy()
        np.testing.assert_array_equal(
            together, [graph([text])["input_ids"].numpy()[0] for text in texts]
        )


# ---- tables ----


def test_tables_cover_every_code_point():
    assert normal_forms().shape == (0x110000, 3)
    assert classes().shape == (0x110000,)
    assert {chr(kind) for kind in np.unique(classes())} == set("L0 !'<|>strevmlldaofenx")
    assert len(set(byte_letters())) == 256


def test_added_tokens_of_single_words_are_refused(golden, tmp_path):
    tokenizer = Tokenizer.from_pretrained(golden / "tokenizer" / "vocabularies" / "toy")
    tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"]["22"]["single_word"] = True
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="single_word"):
        Tokenizer.from_pretrained(tmp_path).graph()


def test_the_part_of_a_word_that_is_read_has_room_for_all_tokens(clip):
    assert clip[1].characters_read == 75 * 32 + CONTEXT


# ---- SavedModel ----

SESSION = """
import json, sys
import tensorflow as tf
try:
    import tf_groupvit
    sys.exit("tf_groupvit can be imported here")
except ImportError:
    pass
folder, texts = sys.argv[1], json.loads(sys.argv[2])
with tf.compat.v1.Session(graph=tf.Graph()) as session:
    meta = tf.compat.v1.saved_model.load(session, ["serve"], folder)
    signature = meta.signature_def["serving_default"]
    fetches = {name: tensor.name for name, tensor in signature.outputs.items()}
    text = signature.inputs["text"].name
    answers = [session.run(fetches, {text: batch}) for batch in (texts, texts[:1], [])]
    print(json.dumps([{name: ids.tolist() for name, ids in answer.items()} for answer in answers]))
    ops = {node.op for f in meta.graph_def.library.function for node in f.node_def}
    print(json.dumps(sorted(ops | {node.op for node in meta.graph_def.node})))
"""


def save(graph: tf.Module, folder: Path) -> None:
    module = tf.Module()
    module.tokenizer = graph
    module.serve = tf.function(
        lambda text: graph(text), input_signature=[tf.TensorSpec([None], tf.string, name="text")]
    )
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})


def test_vocabulary_and_merges_are_assets_of_a_saved_model(pairs, tmp_path):
    save(pairs["trained"][1], tmp_path / "model")
    assert sorted(file.name for file in (tmp_path / "model" / "assets").iterdir()) == [
        "merges.tsv",
        "vocabulary.tsv",
    ]
    loaded = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    texts = tf.constant(["low lower 😂", "", "naïve <pad> ΑΣ"])
    for part, expected in pairs["trained"][1](texts).items():
        np.testing.assert_array_equal(loaded(text=texts)[part].numpy(), expected.numpy())


@pytest.mark.slow
def test_a_session_without_this_package_gives_the_same_ids(pairs, tmp_path, golden):
    tokenizer, graph = pairs["listed"]
    save(graph, tmp_path / "model")
    texts = texts_of(golden / "tokenizer" / "listed.json")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    # -I and another folder keep the package out of sight, and the check within fails where they do
    # not.
    blocked = "import sys; sys.modules['tf_groupvit'] = None\n"
    done = subprocess.run(
        [sys.executable, "-I", "-c", blocked + SESSION, str(tmp_path / "model"), json.dumps(texts)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (whole, one, none), ops = map(json.loads, done.stdout.strip().splitlines()[-2:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            part: values.tolist() for part, values in tokenizer(texts, padding="max_length").items()
        }
    assert whole == expected
    assert one == {part: rows[:1] for part, rows in expected.items()}
    assert none == {"input_ids": [], "attention_mask": []}
    assert not [op for op in ops if "PyFunc" in op or "XlaCallModule" in op or ">" in op]
