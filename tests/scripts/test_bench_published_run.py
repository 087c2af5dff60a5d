"""The published run's arithmetic as the benchmark derives it, and as its page states it."""

import importlib
from argparse import Namespace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "tf_groupvit/training/README.md").read_text()


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts/benchmarks")
    return importlib.import_module("published_run")


def test_the_page_states_what_follows_from_the_recipe(bench):
    found = bench.derived(Namespace(hours=48, devices=16))
    for name in ("images", "steps"):
        assert f"= {found[name]:,}" in PAGE
    assert f"{found['images_per_second']:,.0f} pictures/s" in PAGE
    assert f"which is {found['per_device']:.0f} on each of 16" in PAGE
    assert f"a step in {found['seconds_per_step']:.3f} s" in PAGE


def test_a_ring_of_two_sends_each_byte_once_and_a_long_one_nearly_twice(bench):
    two, many = (bench.sent({"embeddings": 8}, {"reduced": 40}, count) for count in (2, 1000))
    assert [*two.values()] == [40, 4, 8]
    assert [*many.values()] == pytest.approx([80, 8, 16], rel=2e-3)
