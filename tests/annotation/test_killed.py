"""One machine: two thousand pictures, twenty of them broken, in runs that are killed."""

import json
import os

import pytest
from many_pictures import COUNT, broken, records_of

from tf_groupvit.annotation.records import labels_of


@pytest.mark.slow
def test_runs_that_are_killed_twice_give_what_one_run_gives(collection, killed_twice, segmenter):
    output, first, second, summary = killed_twice
    assert 200 <= len(first) < len(second) < COUNT and first < second
    assert (summary["done"], summary["failed"]) == (COUNT - 20, 20)
    assert summary["run"]["pictures"] == COUNT - len(second)

    records = records_of(output)
    assert len(records) == len({record.id for record in records}) == COUNT
    ids = {str(path.relative_to(collection)) for path in collection.rglob("*.*")}
    assert {record.id for record in records} == ids
    failed = {os.path.basename(record.id) for record in records if record.error is not None}
    assert failed == broken().keys()
    errors = [json.loads(line) for line in (output / "errors.jsonl").read_text().splitlines()]
    assert {os.path.basename(error["id"]) for error in errors} == failed and len(errors) == 20
    assert all(error["error"] and "\n" not in error["error"] for error in errors)
    assert [path.name for path in output.rglob(".*")] == [".lock"]

    for record in records[:: COUNT // 20]:
        if record.error is None:
            assert (labels_of(record, 4) == segmenter(collection / record.id).labels).all()
