"""The engine ray: what it refuses, how work is shared, and datasets of Ray as sources."""

import socket
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from many_pictures import records_of

from tf_groupvit.annotation import cluster as on_ray
from tf_groupvit.annotation import run
from tf_groupvit.annotation.cluster import _columns, _shares, _size, check_address, joined
from tf_groupvit.annotation.run import annotate
from tf_groupvit.annotation.sources import Item
from tf_groupvit.errors import InputError
from tf_groupvit.preprocessing.image_reading import read_image
from tf_groupvit.storage import picture_of, place_of

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray brings it")


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"engine": "spark"}, "engine is 'spark': expected one of local, ray"),
        ({"engine": "ray", "workers": 0}, "workers is 0: expected at least 1"),
        ({"workers": 2}, "are for the engine ray, not 'local'"),
        ({"ray_address": "auto"}, "are for the engine ray, not 'local'"),
    ],
)
def test_choices_that_cannot_be_are_refused(
    segmenter, photos, tmp_path, choices, words, monkeypatch
):
    monkeypatch.setattr(run, "find_spec", lambda name: name)
    with pytest.raises(InputError, match=words):
        annotate(photos, segmenter, tmp_path / "labels", **choices)
    assert not (tmp_path / "labels").exists()


def test_without_ray_the_extra_is_named(segmenter, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs ray: pip install 'tf-groupvit\[ray\]'"):
        annotate(photos, segmenter, tmp_path / "labels", engine="ray")


def test_an_output_in_memory_is_refused(segmenter, photos, memory, monkeypatch):
    monkeypatch.setattr(run, "find_spec", lambda name: name)
    with pytest.raises(InputError, match="where no worker can write"):
        annotate(photos, segmenter, f"{memory}/labels", engine="ray")


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_is_not_there_is_one_line_before_anything_is_written(
    segmenter, photos, tmp_path, scheme, monkeypatch
):
    monkeypatch.setattr(run, "find_spec", lambda name: name)
    with socket.socket() as bound:  # it does not listen
        bound.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(InputError, match=f"^Ray at '{address}' is not reached: Conn[^\n]*$"):
            annotate(photos, segmenter, tmp_path / "labels", engine="ray", ray_address=address)
    assert not (tmp_path / "labels").exists()


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_what_answers_and_is_not_ray_is_refused_by_name(scheme, monkeypatch):
    monkeypatch.setattr(on_ray, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"{scheme}127.0.0.1:{silent.getsockname()[1]}"
        words = rf"^Ray at '{address}' is not reached: what answers there is not Ray\.[^\n]*$"
        with pytest.raises(InputError, match=words):
            check_address(address)
        monkeypatch.setenv("RAY_USE_TLS", "1")
        check_address(address)


@needs_ray
@pytest.mark.parametrize("address", ["nowhere", "http://127.0.0.1:1"])
def test_an_address_of_another_kind_is_one_line(address):
    check_address(address)
    words = f"^Ray at '{address}' cannot be used: [^\n]*$"
    with pytest.raises(InputError, match=words), joined(address):
        pass


@needs_ray
def test_a_process_that_is_in_a_cluster_goes_to_no_other(monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    here = SimpleNamespace(gcs_address="10.0.0.1:6379")
    monkeypatch.setattr("ray.get_runtime_context", lambda: here)
    for address in (None, "auto", "local", "10.0.0.1:6379"):
        with joined(address):
            pass
    words = "^Ray at '10.0.0.2:6379' cannot be used: this process is in another cluster: leave"
    with pytest.raises(InputError, match=words), joined("10.0.0.2:6379"):
        pass


@needs_ray
@pytest.mark.parametrize(
    ("machines", "workers", "count", "cores"),
    [
        ([2], None, 1, 2),
        ([2], 2, 2, 1),
        ([4, 4], None, 2, 4),
        ([4, 4], 3, 3, 2),
        ([3, 3], 3, 3, 1),
        ([0, 8], None, 1, 8),  # a head that runs nothing
    ],
)
def test_workers_share_the_processors_of_each_machine(machines, workers, count, cores, monkeypatch):
    nodes = [{"Alive": True, "Resources": {"CPU": one} if one else {}} for one in machines]
    gone = {"Alive": False, "Resources": {"CPU": 64}}
    monkeypatch.setattr("ray.nodes", lambda: [*nodes, gone])
    assert _shares(workers) == (count, cores)


@needs_ray
def test_more_workers_than_processors_are_refused(monkeypatch):
    monkeypatch.setattr("ray.nodes", lambda: [{"Resources": {"CPU": 2}}])
    with pytest.raises(InputError, match="There are 3 workers and 2 processors"):
        _shares(3)


@pytest.mark.parametrize(
    ("pictures", "batch_size", "size"),
    [(2000, 8, 248), (100_000, 8, 256), (100_000, 24, 264), (5, 8, 8), (1, 1, 1), (2000, 400, 400)],
)
def test_chunks_are_of_whole_batches(pictures, batch_size, size):
    assert _size(pictures, 8, batch_size) == size


@pytest.mark.slow
@needs_ray
def test_a_dataset_gives_the_records_of_a_folder(segmenter, photos, cluster, tmp_path):
    import ray

    expected = annotate(photos, segmenter, tmp_path / "here")
    there = tmp_path / "there"
    annotate(photos / "1.png", segmenter, there)
    encoded = ray.data.read_binary_files(str(photos), include_paths=True)
    rows = encoded.map(lambda row: {"id": row["path"].rpartition("/")[2], "bytes": row["bytes"]})
    found = annotate(rows.union(rows), segmenter, there, workers=2)
    assert (found["run"]["pictures"], found["done"], found["failed"]) == (4, 4, 1)
    assert found["classes"] == expected["classes"]
    twice = sorted(problem["source"] for problem in found["problems"])
    assert twice == ["0.png", "1.png", "2.png", "3.png", "broken.jpg"]
    for one, other in zip(records_of(there), records_of(tmp_path / "here"), strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-5)  # batches are others
        assert replace(one, scores=[], confidence=0) == replace(other, scores=[], confidence=0)


def test_rows_hold_bytes_arrays_or_addresses(photos):
    file = photos / "1.png"
    array = read_image(file)
    for value in (file.read_bytes(), array, str(file), {"bytes": None, "path": str(file)}):
        read = run._read(Item("1", partial(picture_of, value, *place_of("/"))))
        np.testing.assert_array_equal(read, array)


@needs_ray
@pytest.mark.parametrize(
    ("names", "column", "words"),
    [
        ([], None, "the dataset is empty"),
        (["bytes"], None, "no column id or path, but bytes: expected"),
        (["id", "photo"], None, "no column 'image', but id, photo: expected"),
        (["id", "image"], "photo", "no column 'photo', but id, image: expected"),
    ],
)
def test_a_dataset_without_pictures_or_ids_is_refused(names, column, words):
    with pytest.raises(InputError, match=words):
        _columns(SimpleNamespace(names=names), column)


def test_pictures_of_a_dataset_are_not_copied(segmenter, tmp_path):
    dataset = SimpleNamespace(map_batches=None)
    with pytest.raises(InputError, match="of a dataset are not copied"):
        annotate(dataset, segmenter, tmp_path / "labels", "voc", with_pictures=True)
