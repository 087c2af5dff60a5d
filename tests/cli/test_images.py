"""What IMAGE arguments mean, how outputs are called, and what is said on the way: hardly any model."""

import io
import os
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.exceptions import Exit
from click.testing import CliRunner

from tf_groupvit import hub
from tf_groupvit.annotation import progress
from tf_groupvit.cli import choices, reports
from tf_groupvit.cli.images import find_images
from tf_groupvit.cli.reports import names_for, report, write_outputs
from tf_groupvit.errors import ImageError, InputError, RequestError
from tf_groupvit.segmentation.result import Segmentation


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Make files below an empty current folder."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()

    return make


KINDS = [
    f"a.{kind}"
    for kind in ("overlay.png", "labels.png", "colors.png", "input_pred_label.png", "json")
]


@pytest.mark.parametrize(("argument", "count"), [("d", 4), ("d/*", 5)])
def test_what_an_earlier_run_has_written_is_left_out_with_a_word(tree, capsys, argument, count):
    tree("d/a.jpg", "d/b.png", *(f"d/{kind}" for kind in KINDS))
    assert find_images([argument]) == ["d/a.jpg", "d/b.png"]
    assert capsys.readouterr().err.startswith(
        f"Left out of '{argument}': {count} files of an earlier run (a.colors."
    )


def test_a_run_that_was_interrupted_is_known_too(tree):
    tree("d/a.jpg", "d/a.overlay.png")
    assert find_images(["d"]) == ["d/a.jpg"]


def test_pictures_that_are_only_called_so_are_taken(tree, capsys):
    tree("d/x.overlay.png", "d/y.input.png", "d/y.jpg", "d/z.json.png")
    assert find_images(["d"]) == ["d/x.overlay.png", "d/y.input.png", "d/y.jpg", "d/z.json.png"]
    assert capsys.readouterr().err == ""


def test_outputs_that_are_named_are_taken(tree):
    tree("d/a.jpg", *(f"d/{kind}" for kind in KINDS))
    assert find_images(["d/*.overlay.png", "d/a.labels.png"]) == [
        "d/a.overlay.png",
        "d/a.labels.png",
    ]


def test_a_folder_of_outputs_alone_is_refused_as_one(tree):
    tree(*(f"d/{kind}" for kind in KINDS))
    with pytest.raises(InputError, match="what an earlier run has written"):
        find_images(["d"])


def test_folders_below_are_left_out_with_a_word_or_taken(tree, capsys):
    tree(
        "d/a.jpg",
        "d/deep/er/b.jpg",
        "d/.hidden/c.jpg",
        "d/texts/notes.txt",
        "d/out/a.overlay.png",
        "d/out/a.json",
    )
    assert find_images(["d"]) == ["d/a.jpg"]
    assert (
        capsys.readouterr().err
        == "Left out of 'd': images in folders below it (deep); --recursive takes them\n"
    )
    assert find_images(["d"], recursive=True) == ["d/a.jpg", "d/deep/er/b.jpg"]


def test_a_folder_whose_images_all_lie_below_says_so(tree):
    tree("d/deep/b.jpg")
    with pytest.raises(InputError, match=r"'deep' in it does.*--recursive"):
        find_images(["d"])
    assert find_images(["d"], recursive=True) == ["d/deep/b.jpg"]


BRACKETS = {
    "data [1]/*.jpg": ["data [1]/a.jpg", "data [1]/b.jpg"],
    "data [12]/*.jpg": ["data 1/c.jpg"],
    "*/x [1]/*.jpg": ["data [1]/x [1]/d.jpg"],
    "data [1]": ["data [1]/a.jpg", "data [1]/b.jpg"],
    "data [1]/**/*.jpg": ["data [1]/a.jpg", "data [1]/b.jpg", "data [1]/x [1]/d.jpg"],
    "**/d.jpg": ["data [1]/x [1]/d.jpg"],
    "data [1]/[b].jpg": ["data [1]/b.jpg"],
}


@pytest.mark.parametrize("pattern", BRACKETS)
def test_a_folder_with_brackets_in_its_name_is_taken_as_it_is_written(tree, pattern):
    tree(
        "data [1]/a.jpg",
        "data [1]/b.jpg",
        "data 1/c.jpg",
        "data [1]/x [1]/d.jpg",
        "data [1]/.e.jpg",
    )
    assert find_images([pattern]) == BRACKETS[pattern]


def test_folders_that_a_pattern_matches_are_told_or_taken(tree, capsys):
    tree("d/a.jpg", "d/deep/b.jpg", "d/texts/notes.txt", "e/c.jpg")
    assert find_images(["d/*"]) == ["d/a.jpg"]
    assert (
        capsys.readouterr().err
        == "Left out of 'd/*': images in folders below it (deep); --recursive takes them\n"
    )
    assert find_images(["d/*"], recursive=True) == ["d/a.jpg", "d/deep/b.jpg"]
    assert find_images(["[de]"]) == ["d/a.jpg", "e/c.jpg"]
    capsys.readouterr()
    assert find_images(["d/**/*.jpg"]) == ["d/a.jpg", "d/deep/b.jpg"]
    assert capsys.readouterr().err == ""


def test_an_absolute_pattern_works(tree, tmp_path):
    tree("data [1]/a.jpg")
    assert find_images([f"{tmp_path}/data [1]/*.jpg"]) == [f"{tmp_path}/data [1]/a.jpg"]


def test_files_that_differ_in_their_ending_keep_it():
    sources = ["d/x.bmp", "d/x.gif", "d/X.webp", "d/y.jpg", "e/x.bmp"]
    assert names_for(sources) == ["x.bmp", "x.gif", "X.webp", "y", "x"]


def test_outputs_lie_as_the_images_lie_below_their_folder():
    sources = ["d/a.jpg", "d/deep/a.jpg", "d/deep/a.png", "f/a.jpg"]
    assert names_for(sources, ["d"]) == ["a", "deep/a.jpg", "deep/a.png", "a-2"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def told(index, answer):
    return {"image": answer}, answer


def test_a_terminal_shows_how_many_of_how_many(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(progress, "FASTEST", 0)
    report(["a"] * 3, enumerate("abc"), told, as_json=False)
    for words in ("0 of 3 images", "1 of 3 images", "2 of 3 images"):
        assert words in sys.stderr.getvalue()


def test_a_log_shows_it_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(reports, "EVERY", 0)
    report(["a"] * 3, enumerate("abc"), told, as_json=False)
    assert capsys.readouterr().err == "1 of 3 images\n2 of 3 images\n"


def test_an_interruption_says_what_was_kept(capsys):
    def answers():
        yield from enumerate("ab")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        report([*"abcd"], answers(), told, as_json=False, kept="out")
    assert capsys.readouterr().err == "Stopped: 2 of 4 images were done; their files are in out\n"


def test_names_of_outputs_never_clash():
    sources = ["a/x.jpg", "b/x.png", "x-2.jpg", "X.gif", "-", "stdin.png", ".png"]
    assert names_for(sources) == ["x", "x-2", "x-2-2", "X-3", "stdin", "stdin-2", ".png"]


def test_folders_and_patterns_are_searched_and_missing_files_kept(tmp_path):
    for name in ("b.JPG", "a.png", "notes.txt"):
        (tmp_path / name).touch()
    a, b = str(tmp_path / "a.png"), str(tmp_path / "b.JPG")
    assert find_images([str(tmp_path)]) == [a, b]
    assert find_images(["-", str(tmp_path / "*.png"), "gone.jpg"]) == ["-", a, "gone.jpg"]
    odd = tmp_path / "photo[1].png"
    odd.touch()
    assert find_images([str(odd)]) == [str(odd)], "a file whose name looks like a pattern"


def test_an_empty_folder_and_a_pattern_without_a_match_are_errors(tmp_path):
    with pytest.raises(InputError, match="holds no images"):
        find_images([str(tmp_path)])
    with pytest.raises(InputError, match="No file matches"):
        find_images([str(tmp_path / "*.jpg")])


def test_a_view_that_is_not_there_leaves_nothing_written(tmp_path):
    result = Segmentation(np.zeros((2, 2), int), ["a"], np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(InputError, match="group maps"):
        write_outputs(result, "a", tmp_path, views=["pred", "final_group"])
    assert list(tmp_path.iterdir()) == []
    paths = write_outputs(result, "a", tmp_path, views=["pred"])
    assert [path.name for path in paths] == [
        f"a.{ending}" for ending in ("overlay.png", "labels.png", "colors.png", "json", "pred.png")
    ]


@pytest.mark.parametrize(
    ("stream", "count", "bar"), [(Terminal, 3, True), (Terminal, 1, False), (io.StringIO, 3, False)]
)
def test_the_progress_bar_runs_over_several_images_on_a_terminal(monkeypatch, stream, count, bar):
    stderr = stream()
    monkeypatch.setattr(sys, "stderr", stderr)
    report(["a"] * count, enumerate("a" * count), told, as_json=False)
    assert ("image" in stderr.getvalue()) == bar


def test_errors_of_images_are_collected_and_others_raised(capsys):
    errors = [ImageError("a: expected an image"), RequestError("INTERNAL", "odd")]
    with pytest.raises(Exit):
        report([*"abc"], enumerate([*errors, "c"]), told, as_json=False)
    assert capsys.readouterr() == ("c\n", "a: expected an image\nb: INTERNAL: odd\n")
    for error in (InputError("no"), RequestError("UNAVAILABLE", "no")):
        with pytest.raises(type(error), match="no"):
            report(["d"], [(0, error)], told, as_json=False)


# --classes and --model


@pytest.mark.parametrize("name", ["names.txt", "@names.txt", "@names", " names.txt "])
def test_classes_may_be_the_lines_of_a_file(tmp_path, monkeypatch, name, capsys):
    monkeypatch.chdir(tmp_path)
    for file in ("names.txt", "names"):
        (tmp_path / file).write_text("\ufeffdog|hound\r\n\n  a red car \nsky", encoding="utf-8")
    assert choices.class_list(name) == ["dog|hound", "a red car", "sky"]
    assert capsys.readouterr().err.endswith(": 3\n")


def test_a_path_with_a_slash_is_a_file_where_it_exists(tmp_path):
    (tmp_path / "a,b").mkdir()
    for name in ("names", "a,b/names.txt"):
        (tmp_path / name).write_text("dog\ncat\n")
        assert choices.class_list(str(tmp_path / name)) == ["dog", "cat"]
    assert choices.class_list(str(tmp_path / "gone")) == str(tmp_path / "gone")  # as and/or is


def test_one_line_with_commas_is_a_list_and_standard_input_is_a_file(tmp_path, monkeypatch):
    (tmp_path / "names.txt").write_text("dog, cat\n")
    assert choices.class_list(str(tmp_path / "names.txt")) == "dog, cat"
    for name in ("-", "@-"):
        monkeypatch.setattr(sys, "stdin", io.StringIO("dog\ncat\n"))
        assert choices.class_list(name) == ["dog", "cat"]


@pytest.mark.parametrize("given", ["dog", "dog,cat.txt", "cat.txt|dog", "St. Bernard", "", "names"])
def test_names_stay_names(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names").touch()
    assert choices.class_list(given) == given


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone.txt", "there is no such file"),
        ("@gone", "there is no such file"),
        ("empty.txt", "has no class: expected"),
        ("a.csv", "one class a line"),
        ("folder.txt", "directory"),
        ("bytes.txt", "not a text in UTF-8"),
        ("zeros.txt", "zero bytes"),
        ("large.txt", "over 16,777,216 bytes: expected a text file with one class a line"),
        ("pointer.txt", "git lfs pull"),
    ],
)
def test_a_file_of_classes_that_cannot_be_used_is_refused(tmp_path, monkeypatch, name, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "zeros.txt").write_bytes(b"dog\0cat")
    (tmp_path / "pointer.txt").write_text("version https://git-lfs.github.com/spec/v1\n")
    with open(tmp_path / "large.txt", "wb") as file:
        file.truncate(2**30)
    with pytest.raises(InputError, match=words) as caught:
        choices.class_list(name)
    assert "\n" not in str(caught.value)


def test_a_pipe_is_read_and_one_without_an_end_is_refused(tmp_path):
    read, write = os.pipe()
    os.write(write, b"dog\ncat\n")
    os.close(write)
    assert choices.class_list(f"@/dev/fd/{read}") == ["dog", "cat"]
    os.close(read)
    with pytest.raises(InputError, match="over"):
        choices.class_list("@/dev/zero")


@pytest.mark.parametrize(
    ("model", "photos", "told"),
    [
        (None, True, 1),
        ("demo", True, 1),
        (str(hub.DEMO), True, 1),
        (None, False, 0),
        ("golden", True, 0),
    ],
)
def test_the_demo_checkpoint_says_what_it_does_not_know(
    monkeypatch, golden, tmp_path, model, photos, told
):
    seen = []

    def from_pretrained(folder, *_, **__):
        seen.append(hub.is_demo(folder))
        hub.warn_of_demo(folder)  # as the real one does: not said twice
        return type("Made", (), {"runtime": "graph"})

    monkeypatch.setattr(
        "tf_groupvit.segmentation.segmenter.Segmenter.from_pretrained", from_pretrained
    )
    monkeypatch.setattr(hub, "_logged", set())
    monkeypatch.chdir(tmp_path)  # where no folder is called demo
    given = str(golden / "segmenter") if model == "golden" else model
    load = click.Command(
        "x", callback=lambda: choices.load_segmenter(given, photos=photos, classes="dog")
    )
    done = CliRunner().invoke(load)
    assert (done.exit_code, done.stdout) == (0, ""), done.output
    assert done.stderr.count("knows drawn scenes only: for photos") == told
    assert seen == [model != "golden"]


def test_python_is_told_once_that_it_has_the_demo_checkpoint(monkeypatch, caplog):
    monkeypatch.setattr(hub, "_logged", set())
    for path in ("demo", hub.demo_checkpoint(), str(hub.demo_checkpoint())):
        hub.warn_of_demo(hub.resolve(path))
    assert [record.getMessage() for record in caplog.records] == [hub.DEMO_WORDS]


def test_a_folder_called_demo_is_taken_where_it_is_named_and_only_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    loaded = []
    monkeypatch.setattr(
        "tf_groupvit.segmentation.segmenter.Segmenter.from_pretrained",
        lambda folder, *_, **__: loaded.append(folder) or type("Made", (), {"runtime": "graph"}),
    )
    for model in ("demo", None):
        choices.load_segmenter(model, classes="dog")
    assert loaded == [Path("demo"), hub.DEMO]


def test_a_hub_id_is_resolved_once(monkeypatch):
    asked, model = [], hub.DEMO.resolve()

    def resolve(name):
        asked.append(name)
        return model

    monkeypatch.setattr(choices, "resolve", resolve)
    monkeypatch.setattr(
        "tf_groupvit.segmentation.segmenter.Segmenter.from_pretrained",
        lambda folder, *_, **__: asked.append(folder) or type("Made", (), {"runtime": "graph"}),
    )
    choices.load_segmenter("organization/name", classes="dog")
    assert asked == ["organization/name", model]
