"""annotate: records of every picture, once, equal to the segmenter's own, whatever interrupts."""

import csv
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_pictures import picture

from tf_groupvit.annotation import run
from tf_groupvit.annotation.parts import Parts
from tf_groupvit.annotation.records import labels_of
from tf_groupvit.annotation.run import annotate
from tf_groupvit.annotation.sources import PictureFinder, find_items
from tf_groupvit.errors import InputError
from tf_groupvit.storage import Output


def records_in(output):
    return {record.id: record for record in Parts(Output(output)).records()}


def test_records_are_what_the_segmenter_says_and_failures_are_named(segmenter, photos, tmp_path):
    summary = annotate(photos, segmenter, tmp_path / "labels", batch_size=3)
    assert (summary["done"], summary["failed"], summary["problems"]) == (4, 1, [])
    records = records_in(tmp_path / "labels")
    assert list(records) == ["0.png", "1.png", "2.png", "3.png", "broken.jpg"]
    for name in list(records)[:4]:
        result = segmenter(photos / name)
        assert (labels_of(records[name], 4) == result.labels).all()
        assert records[name].confidence == pytest.approx(result.margins.mean())
        present = [name for name, area in result.areas.items() if area]
        assert records[name].scores == [result.class_scores[name] for name in present]
    (line,) = (tmp_path / "labels" / "errors.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "id": "broken.jpg",
        "error": "expected an image such as JPEG or PNG, got 10 bytes that start with"
        " b'no picture'",
    }


def test_the_end_sums_up_and_lists_the_least_certain_first(segmenter, photos, tmp_path):
    summary = annotate(str(photos), segmenter, tmp_path / "labels")
    folder = tmp_path / "labels"
    assert json.loads((folder / "summary.json").read_text()) == summary
    pixels = sum(
        np.bincount(segmenter(photos / f"{k}.png").labels.ravel(), minlength=4) for k in range(4)
    )
    assert [one["pixels"] for one in summary["classes"]] == pixels.tolist()
    assert summary["pixels"] == pixels.sum() and summary["ignored_pixels"] == 0
    with open(folder / "review.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    confidences = {k: segmenter(photos / f"{k}.png").margins.mean() for k in range(4)}
    order = sorted(confidences, key=confidences.get)
    assert [row["id"] for row in rows] == [f"{k}.png" for k in order]
    assert float(rows[0]["confidence"]) == pytest.approx(min(confidences.values()), abs=1e-6)
    assert "%" in rows[0]["classes"]
    with Image.open(folder / "contact_sheet.jpg") as sheet:
        assert sheet.width > 4 * 400
    assert sum(summary["run"]["shares"].values()) == pytest.approx(1, abs=0.01)


def test_another_run_does_what_is_new_and_nothing_twice(segmenter, photos, tmp_path, monkeypatch):
    annotate(photos, segmenter, tmp_path / "labels")
    (photos / "broken.jpg").write_bytes(picture(7, kind="jpeg"))
    (photos / "new.png").write_bytes(picture(8))
    before = records_in(tmp_path / "labels")
    summary = annotate(photos, segmenter, tmp_path / "labels")
    after = records_in(tmp_path / "labels")
    assert summary["run"]["pictures"] == 1 and summary["failed"] == 1
    assert after.keys() - before.keys() == {"new.png"}
    summary = annotate(photos, segmenter, tmp_path / "labels", retry_failed=True)
    assert summary["run"]["pictures"] == 1 and (summary["done"], summary["failed"]) == (6, 0)
    ids = [item_id for item_id, _ in Parts(Output(tmp_path / "labels")).ids()]
    assert len(ids) == len(set(ids)) == 6
    assert annotate(photos, segmenter, tmp_path / "labels")["run"]["pictures"] == 0


def test_what_was_done_before_an_interruption_is_kept(segmenter, photos, tmp_path, monkeypatch):
    whole = run.record_of

    def interrupted(item_id, *arguments):
        if item_id == "2.png":
            raise KeyboardInterrupt
        return whole(item_id, *arguments)

    monkeypatch.setattr(run, "record_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        annotate(photos, segmenter, tmp_path / "labels", batch_size=1)
    assert list(records_in(tmp_path / "labels")) == ["0.png", "1.png"]
    monkeypatch.undo()
    assert annotate(photos, segmenter, tmp_path / "labels")["run"]["pictures"] == 3


def test_memory_and_disk_give_the_same_records(segmenter, photos, tmp_path, memory):
    import fsspec

    for path in photos.iterdir():
        with fsspec.open(f"{memory}/photos/{path.name}", "wb") as file:
            file.write(path.read_bytes())
    annotate(photos, segmenter, tmp_path / "labels")
    annotate(f"{memory}/photos/", segmenter, f"{memory}/labels")
    assert records_in(f"{memory}/labels") == records_in(tmp_path / "labels")
    names = [
        "contact_sheet.jpg",
        "errors.jsonl",
        "manifest.json",
        "records",
        "review.csv",
        "summary.json",
    ]
    assert Output(f"{memory}/labels").names() == Output(tmp_path / "labels").names() == names
    sheet = (tmp_path / "labels" / "contact_sheet.jpg").read_bytes()
    assert Output(f"{memory}/labels").read("contact_sheet.jpg") == sheet
    assert annotate(memory, segmenter, f"{memory}/labels", recursive=True)


def test_small_parts_hold_every_record_once(segmenter, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "PART_PICTURES", 2)
    annotate(photos, segmenter, tmp_path / "labels", batch_size=2)
    parts = Parts(Output(tmp_path / "labels"))
    assert len(parts.names()) == 3 and len(list(parts.ids())) == 5


def test_parts_are_of_whole_batches(segmenter, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "PART_PICTURES", 2)
    annotate(photos, segmenter, tmp_path / "labels", batch_size=3)
    parts = sorted((tmp_path / "labels" / "records").iterdir())
    assert [pq.read_metadata(part).num_rows for part in parts] == [3, 2]


def test_uncertain_pixels_belong_to_no_class(segmenter, photos, tmp_path):
    margins = segmenter(photos / "0.png").margins
    least = float(np.median(margins)) + 1e-6
    summary = annotate(photos / "0.png", segmenter, tmp_path / "labels", ignore_below=least)
    labels = labels_of(records_in(tmp_path / "labels")["0.png"], 4)
    assert ((labels == 255) == (margins < least)).all()
    assert summary["ignored_pixels"] == (margins < least).sum() > 0
    with Image.open(tmp_path / "labels" / "contact_sheet.jpg") as sheet:
        assert sheet.size[0] < 2 * 400


def test_of_two_pictures_with_one_id_the_second_is_a_problem(segmenter, photos, tmp_path):
    (tmp_path / "list.txt").write_text("photos/0.png\nphotos/1.png\nphotos/0.png\n")
    for _ in range(2):
        summary = annotate(tmp_path / "list.txt", segmenter, tmp_path / "labels")
        assert summary["done"] == 2
        (problem,) = summary["problems"]
        assert (
            problem["source"] == "photos/0.png"
            and "another picture has this id" in problem["error"]
        )
        (line,) = (tmp_path / "labels" / "errors.jsonl").read_text().splitlines()
        assert json.loads(line) == problem


def test_other_settings_are_refused_and_change_nothing(segmenter, photos, tmp_path):
    annotate(photos, segmenter, tmp_path / "labels")
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "labels").rglob("*"))
    with pytest.raises(InputError, match=r"settings background was null and is 0\.5 now"):
        annotate(photos, segmenter.with_background(0.5), tmp_path / "labels")
    with pytest.raises(InputError, match=r"settings ids was .*within the only location"):
        annotate([str(photos), str(photos)], segmenter, tmp_path / "labels")
    after = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "labels").rglob("*"))
    assert before == after


def test_without_a_picture_nothing_is_written(segmenter, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"There is no picture to annotate: none ends in \.jpg"):
        annotate(tmp_path / "empty", segmenter, tmp_path / "labels")
    with pytest.raises(InputError, match=r"no picture to annotate: .*gone: there is no such file"):
        annotate(tmp_path / "gone", segmenter, tmp_path / "labels")
    assert not (tmp_path / "labels").exists()


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"format": "xyz"}, "no format 'xyz': did you mean"),
        ({"tolerance": -1.0}, r"tolerance of polygons is -1\.0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"ignore_below": 1.5}, r"ignore_below is 1\.5"),
    ],
)
def test_choices_that_cannot_be_are_refused(segmenter, photos, tmp_path, choice, words):
    with pytest.raises(InputError, match=words):
        annotate(photos, segmenter, tmp_path / "labels", **choice)
    assert not (tmp_path / "labels").exists()


def test_a_model_that_fails_on_everything_stops_the_run(segmenter, tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    for number in range(40):
        (tmp_path / "photos" / f"{number}.png").write_bytes(picture(number))

    def broken(images):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(type(segmenter), "segment_batch", lambda self, images: broken(images))
    with pytest.raises(RuntimeError, match="out of memory"):
        annotate(tmp_path / "photos", segmenter, tmp_path / "labels")


def test_a_model_that_fails_on_a_batch_does_its_pictures_one_by_one(
    segmenter, photos, tmp_path, monkeypatch
):
    whole = type(segmenter).segment_batch

    def narrow(self, images):
        if len(images) > 1:
            raise RuntimeError("out of memory")
        return whole(self, images)

    monkeypatch.setattr(type(segmenter), "segment_batch", narrow)
    assert annotate(photos, segmenter, tmp_path / "labels")["done"] == 4


@pytest.mark.skipif(os.name == "nt", reason="files are not locked there")
def test_two_runs_at_a_time_are_one_too_many(segmenter, photos, tmp_path):
    annotate(photos, segmenter, tmp_path / "labels")
    with (
        run._alone(Output(tmp_path / "labels")),
        pytest.raises(InputError, match="Another run is writing"),
    ):
        annotate(photos, segmenter, tmp_path / "labels")


def test_a_full_disk_is_one_line_and_leaves_whole_parts(segmenter, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "PART_PICTURES", 2)
    write, written = Output.write, []

    def full(self, name, content):
        if name.startswith("records/") and written:
            raise InputError(f"'{name}' cannot be written: No space left on device.")
        written.append(name) if name.startswith("records/") else None
        write(self, name, content)

    monkeypatch.setattr(Output, "write", full)
    with pytest.raises(InputError, match="No space left on device"):
        annotate(photos, segmenter, tmp_path / "labels", batch_size=2)
    monkeypatch.undo()
    assert len(records_in(tmp_path / "labels")) == 2
    assert annotate(photos, segmenter, tmp_path / "labels")["done"] == 4


def test_a_format_that_cannot_hold_the_classes_is_refused_before_anything(
    segmenter, photos, tmp_path
):
    other = segmenter.with_classes("#apple,grass")
    with pytest.raises(InputError, match="format voc cannot hold the name '#apple'"):
        annotate(photos, other, tmp_path / "labels", "voc")
    assert not (tmp_path / "labels").exists()


def test_pictures_are_copied_where_a_format_has_them(segmenter, photos, tmp_path, memory):
    for output in (tmp_path / "labels", f"{memory}/labels"):
        annotate(photos, segmenter, output, "voc", with_pictures=True)
        copies = Output(f"{output}/voc")
        assert copies.names("JPEGImages") == [f"{k}.png" for k in range(4)]
        assert copies.read("JPEGImages/2.png") == (photos / "2.png").read_bytes()
        assert copies.names("SegmentationClass") == [f"{k}.png" for k in range(4)]


def test_what_two_runs_did_at_once_is_kept_once(segmenter, photos, memory):
    annotate(photos, segmenter, f"{memory}/labels")
    parts = Parts(Output(f"{memory}/labels"))
    parts.write(list(parts.records())[:3])  # of a run on another machine
    (photos / "new.png").write_bytes(picture(8))
    assert annotate(photos, segmenter, f"{memory}/labels")["done"] == 5
    ids = [item_id for item_id, _ in parts.ids()]
    assert len(ids) == len(set(ids)) == 6


def test_a_picture_that_is_gone_costs_its_copy_alone(segmenter, photos, tmp_path):
    annotate(photos, segmenter, tmp_path / "labels")
    (photos / "1.png").unlink()
    summary = annotate(photos, segmenter, tmp_path / "labels", "yolo", with_pictures=True)
    copies = Output(tmp_path / "labels" / "yolo")
    assert copies.names("images") == ["0.png", "2.png", "3.png"]
    assert copies.names("labels") == [f"{k}.txt" for k in range(4)]
    reason = "it has no copy, since the picture is not there any more"
    assert summary["problems"] == [{"source": "1.png", "error": reason}]
    lines = (tmp_path / "labels" / "errors.jsonl").read_text().splitlines()
    assert {"source": "1.png", "error": reason} in map(json.loads, lines)


def test_copies_for_a_format_without_pictures_are_refused(segmenter, photos, tmp_path):
    with pytest.raises(InputError, match="belong to voc, labelme, yolo, not to 'coco'"):
        annotate(photos, segmenter, tmp_path / "labels", "coco", with_pictures=True)
    assert not (tmp_path / "labels").exists()


def test_pictures_from_elsewhere_are_added_and_said_to_be(segmenter, photos, tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("0.png", "9.png"):
        (tmp_path / "more" / name).write_bytes(picture(9))
    annotate(photos, segmenter, tmp_path / "labels")
    said = []
    summary = annotate(tmp_path / "more", segmenter, tmp_path / "labels", say=said.append)
    assert summary["run"]["pictures"] == 1 and summary["done"] == 5
    (words,) = said
    assert f"was begun with pictures of {photos}: those of {tmp_path / 'more'} are added" in words
    annotate(photos, segmenter, tmp_path / "labels", say=said.append)
    assert len(said) == 1


def test_another_column_of_the_same_file_is_said_to_count_as_done(segmenter, tmp_path):
    table = pa.table({"photo": [picture(1)], "sketch": [picture(2)]})
    pq.write_table(table, tmp_path / "both.parquet")
    said = []
    for column in ("photo", "photo", "sketch"):
        annotate(
            tmp_path / "both.parquet",
            segmenter,
            tmp_path / "labels",
            column=column,
            say=said.append,
        )
    (words,) = said
    assert "both.parquet (column photo): those of" in words
    assert "both.parquet (column sketch) are added" in words


def test_pictures_are_found_by_id_in_any_order_and_missed_by_name(photos):
    find = PictureFinder(find_items([str(photos)]))
    for name in ("3.png", "0.png", "2.png"):
        assert find(name) == (photos / name).read_bytes()
    with pytest.raises(InputError, match="the picture is not there any more"):
        find("9.png")


def test_what_a_killed_run_has_not_finished_is_deleted(segmenter, photos, tmp_path):
    annotate(photos, segmenter, tmp_path / "labels")
    for place in (tmp_path / "labels", tmp_path / "labels" / "records"):
        (place / ".part.123.tmp").write_bytes(b"half")
    annotate(photos, segmenter, tmp_path / "labels")
    assert [path.name for path in (tmp_path / "labels").rglob(".*")] == [".lock"]
