"""annotate on S3: from a bucket into a bucket, and what a bucket can be missing. Loopback only."""

import fsspec
import pytest
from small_pictures import picture

from tf_groupvit.annotation.parts import Parts
from tf_groupvit.annotation.run import annotate
from tf_groupvit.annotation.sources import find_items
from tf_groupvit.errors import InputError
from tf_groupvit.storage import Output


def test_a_bucket_is_annotated_into_a_bucket_as_a_folder_into_a_folder(
    s3, segmenter, photos, tmp_path
):
    for path in photos.iterdir():
        s3.pipe_file(f"photos/deep/{path.name}", path.read_bytes())
    annotate(photos, segmenter, tmp_path / "labels")
    s3.mkdir("labels")
    summary = annotate("s3://photos/deep", segmenter, "s3://labels/first", "coco")
    assert (summary["done"], summary["failed"]) == (4, 1)
    there, here = (Parts(Output(place)) for place in ("s3://labels/first", tmp_path / "labels"))
    assert list(there.records()) == list(here.records())
    s3.pipe_file("photos/deep/new.png", picture(9))
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # as another process has it
    assert annotate("s3://photos/deep/", segmenter, "s3://labels/first")["run"]["pictures"] == 1
    with pytest.raises(InputError, match=r"s3://labels/first' belongs to another run"):
        annotate("s3://photos/deep", segmenter.with_background(0.1), "s3://labels/first")
    assert annotate("s3://photos", segmenter, "s3://labels/second", recursive=True)["done"] == 5


def problems(location):
    return [(one.source, one.reason) for one in find_items([location])]


def test_a_bucket_that_is_not_there_is_one_line(s3, segmenter, photos):
    assert problems("s3://nowhere/x") == [("s3://nowhere/x", "there is no such file or folder")]
    with pytest.raises(
        InputError, match=r"'s3://nowhere/labels/manifest\.json' cannot be written: "
    ):
        annotate(photos, segmenter, "s3://nowhere/labels")


def test_credentials_that_are_missing_are_one_line(s3, segmenter, photos, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    ((source, reason),) = problems("s3://photos/x")
    assert source == "s3://photos/x" and "credentials" in reason and "\n" not in reason
    with pytest.raises(InputError, match=r"cannot be (read|written): .*credentials"):
        annotate(photos, segmenter, "s3://labels/first")
