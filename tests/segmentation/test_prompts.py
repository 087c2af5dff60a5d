"""Class names to embeddings: names by hand, embeddings by the rule, files that are and are not
ours.
"""

import io
import zipfile

import numpy as np
import pytest
from keras import ops

from tf_groupvit.errors import InputError
from tf_groupvit.segmentation import prompts
from tf_groupvit.segmentation.class_names import parse_classes
from tf_groupvit.segmentation.prompts import ClassEmbeddings, embed_classes, encode_prompts

# Names


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("dog", [("dog",)]),
        ("dog,hot dog", [("dog",), ("hot dog",)]),
        ("  dog ,\tsofa | couch ", [("dog",), ("sofa", "couch")]),
        ("hot   dog", [("hot dog",)]),
        (["dog"], [("dog",)]),
        (["salt, pepper", "sofa|couch|settee"], [("salt, pepper",), ("sofa", "couch", "settee")]),
        (("dog", "Dog"), [("dog",), ("Dog",)]),
        ((name for name in ("狗", "草")), [("狗",), ("草",)]),
        ({"cat": ["kitten"], "hot  dog": []}, [("cat", "kitten"), ("hot dog",)]),
        ({"cat": "kitten, puss|tabby", "dog": ""}, [("cat", "kitten", "puss", "tabby"), ("dog",)]),
        (
            {"cat": ["cat", " kitten", "kitten"], "sofa|couch": ("settee",)},
            [("cat", "kitten"), ("sofa", "couch", "settee")],
        ),
        ({"cat": None, "dog": (name for name in ["puppy"])}, [("cat",), ("dog", "puppy")]),
        ({"cat": []}.keys(), [("cat",)]),
    ],
)
def test_names_by_hand(given, expected):
    assert parse_classes(given) == expected


@pytest.mark.parametrize("given", ["", "  ", [], (), {}])
def test_no_classes_are_refused(given):
    with pytest.raises(InputError, match="empty: give at least one"):
        parse_classes(given)


@pytest.mark.parametrize(
    "given",
    [
        "dog,",
        ",dog",
        "dog,,cat",
        "dog, ,cat",
        ["dog", ""],
        ["  "],
        ["sofa|"],
        "|",
        {"": []},
        {"dog": [""]},
        {"dog": "puppy,"},
    ],
)
def test_an_empty_name_is_refused_with_its_place(given):
    with pytest.raises(InputError, match=r"Class \d of \d is .* an empty name"):
        parse_classes(given)


@pytest.mark.parametrize(
    "given", ["dog,cat,dog", ["dog", " dog "], "hot dog,hot  dog", "sofa|couch,sofa|settee"]
)
def test_a_class_that_is_there_twice_is_refused_by_name(given):
    with pytest.raises(InputError, match=r"twice: '(dog|hot dog|sofa)'"):
        parse_classes(given)


@pytest.mark.parametrize("given", [3, b"dog", None, ["dog", 3], ["dog", None], [["dog"]], [b"dog"]])
def test_what_is_no_name_is_refused(given):
    with pytest.raises(InputError, match=r"expected a (list|name)"):
        parse_classes(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cat": 0}, "synonyms of 'cat' are 0: expected a list"),
        ({0: "cat"}, "0 is among the names of class 0: expected strings"),
        ({"cat": ["kitten", 3]}, "3 is among the names of class 'cat'"),
        ({"cat": {"kitten": 1}}, "synonyms of 'cat'"),
        ({"cat", "dog"}, "has no order"),
    ],
)
def test_synonyms_that_are_no_names_and_names_without_an_order_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        parse_classes(given)


def test_a_path_is_a_file_with_one_class_a_line(tmp_path):
    file = tmp_path / "names.txt"
    for content in (
        b"dog|hound\n\n  hot  dog \n",
        b"\xef\xbb\xbfdog|hound\r\nhot dog",
        b"dog|hound\rhot dog\r",
    ):
        file.write_bytes(content)
        assert parse_classes(file) == [("dog", "hound"), ("hot dog",)]
    file.write_text("草, 狗\n", encoding="utf-8")
    assert parse_classes(file) == [("草",), ("狗",)]
    file.write_text("dog\ncat\ndog\n")
    with pytest.raises(InputError, match="twice: 'dog'"):
        parse_classes(file)
    with pytest.raises(InputError, match=r"gone\.txt: there is no such file: .*one class a line"):
        parse_classes(tmp_path / "gone.txt")


@pytest.mark.parametrize("given", ["names.txt", "dog, sets/coco.names", "dog|names.TXT,cat"])
def test_the_name_of_a_file_is_no_class(given):
    with pytest.raises(InputError, match=r"the name of a file: .*--classes .* Path\('"):
        parse_classes(given)


def test_synonyms_of_a_dict_are_those_of_bars(embed):
    given = {"sofa": ["couch"], "grass": []}
    one, other = embed(given), embed("sofa|couch,grass")
    assert one.names == other.names == ("sofa", "grass")
    assert (one.embeds == other.embeds).all() and (one.embeds[0] != embed("sofa").embeds[0]).any()


# Embeddings


@pytest.fixture
def embed(segmenter):
    def run(classes, templates="a photo of a {}."):
        return embed_classes(segmenter.model, segmenter.tokenizer, classes, templates)

    return run


def projections(segmenter, prompts):
    """One prompt at a time through the tower: (N, D), not normalised."""
    ids = [segmenter.tokenizer([prompt])["input_ids"] for prompt in prompts]
    return np.concatenate(
        [ops.convert_to_numpy(segmenter.model.get_text_features(row)) for row in ids]
    )


def test_an_embedding_is_the_mean_of_raw_projections_made_one_long(segmenter, embed):
    templates = ["a photo of a {}.", "{}", "the {} in the grass"]
    mean = projections(segmenter, [template.format("dog") for template in templates]).mean(0)
    assert embed("dog", templates).embeds[0] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)


def test_synonyms_are_averaged_and_the_class_is_called_by_the_first(segmenter, embed):
    found = embed(["sheep|dog|hot dog", "grass"], "identity")
    mean = projections(segmenter, ["sheep", "dog", "hot dog"]).mean(0)
    assert found.names == ("sheep", "grass")
    assert found.embeds[0] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)
    assert found.embeds[1] == pytest.approx(embed("grass", "identity").embeds[0], abs=1e-5)


def test_embeddings_of_the_subset_are_those_of_transformers(embed, rendered):
    found = embed(list(rendered["classes"]), "subset")
    assert found.embeds.dtype == np.float32
    assert found.embeds == pytest.approx(rendered["subset"], abs=1e-5)
    assert found.templates[0] == "itap of a {}."


def test_the_order_of_the_classes_does_not_matter(embed):
    names = ["dog", "a very large boat", "sky", "sheep"]
    forwards, backwards = embed(names), embed(names[::-1])
    assert forwards.embeds == pytest.approx(backwards.embeds[::-1], abs=1e-5)


@pytest.mark.parametrize("at_once", [1, 3])
def test_how_many_prompts_go_through_at_once_does_not_matter(
    segmenter, embed, monkeypatch, at_once
):
    names = ["dog", "a very large boat", "sky", "sheep"]
    expected = embed(names).embeds
    monkeypatch.setattr("tf_groupvit.segmentation.prompts.PROMPTS_AT_ONCE", at_once)
    assert embed(names).embeds == pytest.approx(expected, abs=1e-5)


def test_embeddings_of_different_classes_differ(embed):
    embeds = embed(["dog", "grass", "sky"]).embeds
    assert (np.abs(embeds @ embeds.T - np.eye(3)) < 0.99).all()


def test_a_name_that_is_too_long_for_the_model_is_cut_with_a_warning(segmenter):
    assert segmenter.tokenizer.max_length == 77
    assert segmenter.model.config.text_config.max_position_embeddings == 24
    with pytest.warns(UserWarning, match="24"):
        features = encode_prompts(segmenter.model, segmenter.tokenizer, ["sheep " * 200, "dog"])
    assert features.shape == (2, 8)
    assert np.isfinite(features).all()


# Files


def test_embeddings_come_back_from_their_file(embed, tmp_path):
    made = embed(["sofa|couch", "dög"], ["{}", "my {}"])
    made.save(tmp_path / "classes.npz")
    found = ClassEmbeddings.load(tmp_path / "classes.npz")
    assert (found.names, found.templates) == (("sofa", "dög"), ("{}", "my {}"))
    assert (found.embeds == made.embeds).all()
    assert [path.name for path in tmp_path.iterdir()] == ["classes.npz"]


def npz(**arrays):
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def huge_header():
    """An array whose header promises 8 PB."""
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        array, {"descr": "<f8", "fortran_order": False, "shape": (10**15,)}
    )
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name in ("names", "embeds", "templates"):
            file.writestr(f"{name}.npy", array.getvalue())
    return content.getvalue()


def npy():
    content = io.BytesIO()
    np.save(content, np.eye(2))
    return content.getvalue()


GOOD = dict(names=np.array(["a", "b"]), embeds=np.eye(2, 8), templates=np.array(["{}"]))
HOSTILE = {
    "empty": b"",
    "text": b"names, embeds",
    "zip cut short": npz(**GOOD)[:300],
    "zip without a directory": b"PK\x03\x04" + bytes(50),
    "an array": npy(),
    "pickles": npz(**{**GOOD, "names": np.array([{"a": 1}, "b"], object)}),
    "huge": huge_header(),
    "no names": npz(embeds=np.eye(2)),
    "one name": npz(**{**GOOD, "names": np.array("a")}),
    "numbers for names": npz(**{**GOOD, "names": np.arange(2)}),
    "an empty name": npz(**{**GOOD, "names": np.array(["a", ""])}),
    "names twice": npz(**{**GOOD, "names": np.array(["a", "a"])}),
    "three names": npz(**{**GOOD, "names": np.array(["a", "b", "c"])}),
    "no classes": npz(**{**GOOD, "names": np.array([], str), "embeds": np.zeros((0, 8))}),
    "integers": npz(**{**GOOD, "embeds": np.eye(2, 8, dtype=int)}),
    "cube": npz(**{**GOOD, "embeds": np.ones((2, 2, 2))}),
    "not a number": npz(**{**GOOD, "embeds": np.full((2, 8), np.nan)}),
    "zeros": npz(**{**GOOD, "embeds": np.zeros((2, 8))}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_that_holds_no_embeddings_is_refused_in_one_line(kind, tmp_path):
    (tmp_path / "classes.npz").write_bytes(HOSTILE[kind])
    with pytest.raises(InputError) as caught:
        ClassEmbeddings.load(tmp_path / "classes.npz")
    assert "\n" not in str(caught.value)


def test_a_small_file_that_unpacks_to_a_large_one_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(prompts, "MOST_UNPACKED", 2**16)
    for columns in (2**10, 2**12):
        packed = io.BytesIO()
        np.savez_compressed(packed, **{**GOOD, "embeds": np.eye(2, columns)})
        (tmp_path / f"{columns}.npz").write_bytes(packed.getvalue())
    assert ClassEmbeddings.load(tmp_path / "1024.npz").embeds.shape == (2, 2**10)
    with pytest.raises(InputError, match=r"holds no class embeddings \(65,\d+ bytes unpacked\)"):
        ClassEmbeddings.load(tmp_path / "4096.npz")
    (tmp_path / "classes.npz").write_bytes(npz(**{**GOOD, "embeds": np.eye(2, 2**12)}))
    assert ClassEmbeddings.load(tmp_path / "classes.npz").embeds.shape == (2, 2**12)


def test_a_good_file_of_the_same_making_is_read(tmp_path):
    (tmp_path / "classes.npz").write_bytes(npz(**GOOD))
    assert ClassEmbeddings.load(tmp_path / "classes.npz").names == ("a", "b")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no\.npz is not there"):
        ClassEmbeddings.load(tmp_path / "no.npz")
