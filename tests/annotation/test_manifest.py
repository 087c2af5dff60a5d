"""The manifest: a run goes on in its own folder, and in no other."""

import copy
import json

import pytest

from tf_groupvit.annotation.manifest import START, describe, go_on, is_manifest
from tf_groupvit.errors import InputError
from tf_groupvit.storage import Output

MANIFEST = {
    "kind": "tf-groupvit annotate",
    "version": 1,
    "classes": [{"number": 0, "name": "dog"}, {"number": 1, "name": "sky"}],
    "embeds": {"dog": [0.5, 0.25], "sky": [0.25, 0.5]},
    "model": {"config": "c", "weights": "w"},
    "settings": {"mode": "whole", "size": (224, 224)},
    "versions": {"keras": "3.15"},
}


@pytest.fixture
def output(tmp_path):
    return Output(tmp_path / "labels")


def test_a_new_folder_gets_the_manifest_and_the_same_run_goes_on(output):
    assert go_on(output, MANIFEST) is False
    assert go_on(output, {**MANIFEST, "versions": {"keras": "3.16"}}) is True
    content = output.read("manifest.json")
    assert is_manifest(content[:START]) and json.loads(content)["versions"] == {"keras": "3.15"}


@pytest.mark.parametrize(
    ("part", "name", "value", "words"),
    [
        ("model", "weights", "v", 'model weights was "w" and is "v" now'),
        ("settings", "mode", "window", 'settings mode was "whole" and is "window" now'),
        ("settings", "refine", "pamr", 'settings refine was null and is "pamr" now'),
    ],
)
def test_another_run_is_refused_by_the_name_of_the_difference(output, part, name, value, words):
    go_on(output, MANIFEST)
    other = copy.deepcopy(MANIFEST)
    other[part][name] = value
    with pytest.raises(InputError, match=f"belongs to another run: {words}: use the same"):
        go_on(output, other)


def test_other_classes_are_refused_by_their_names(output):
    go_on(output, MANIFEST)
    other = {**MANIFEST, "embeds": {"dog": [0.5, 0.25]}}
    with pytest.raises(InputError, match='classes was "dog, sky" and is "dog" now'):
        go_on(output, other)


def test_embeddings_that_differ_by_rounding_are_the_same_classes(output):
    go_on(output, {**MANIFEST, "embeds": {"dog": [0.5, 0.25]}})
    assert go_on(output, {**MANIFEST, "embeds": {"dog": [0.5003, 0.2499]}})
    with pytest.raises(InputError, match=r"embeds dog was \[0.5, 0.25\] and is \[0.5, 0.2\] now"):
        go_on(output, {**MANIFEST, "embeds": {"dog": [0.5, 0.2]}})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("thesis.doc", "holds 'thesis.doc', and is no folder of annotations"),
        ("manifest.json", "that is no manifest of annotations"),
    ],
)
def test_a_folder_of_something_else_is_refused_and_left_as_it_is(output, name, words):
    output.write(name, "{}")
    with pytest.raises(InputError, match=words):
        go_on(output, MANIFEST)
    assert output.names() == [name] and output.read(name) == b"{}"


def test_what_an_interrupted_start_has_left_is_no_content(output):
    output.write(".manifest.json.123.tmp", "{")
    assert go_on(output, MANIFEST) is False


def test_every_choice_that_changes_labels_is_part_of_it():
    from tf_groupvit.hub import demo_checkpoint
    from tf_groupvit.segmentation.segmenter import Segmenter

    segmenter = Segmenter.from_pretrained(demo_checkpoint(), "apple,grass")
    manifest = json.loads(json.dumps(describe(segmenter)))
    again = Segmenter.from_pretrained(demo_checkpoint(), "apple,grass")
    assert json.loads(json.dumps(describe(again))) == manifest
    names = [(one["number"], one["name"], len(one["color"])) for one in manifest["classes"]]
    assert names == [(0, "apple", 3), (1, "grass", 3)]
    changed = [
        describe(segmenter.with_choices(**{name: value}))
        for name, value in dict(
            protocol="hf", mode="window", background=0.5, normalize="clip", refine="pamr"
        ).items()
    ]
    changed.append(describe(segmenter.with_classes("apple,sky")))
    changed.append(describe(segmenter.with_classes("apple|pear,grass")))
    changed.append(describe(segmenter.with_classes("apple,grass", templates="a {}")))
    changed += [describe(segmenter, ignore_below=0.1), describe(segmenter, locations=["a", "b"])]
    assert len({json.dumps(one) for one in [manifest, *changed]}) == len(changed) + 1
    segmenter.model.trainable_variables[0].assign_add(segmenter.model.trainable_variables[0])
    assert describe(segmenter)["model"]["weights"] != manifest["model"]["weights"]
