"""Progress of a run: a bar in a terminal, nothing elsewhere, and always the same records."""

import io
import sys

import pytest

from tf_groupvit.annotation.progress import with_bar


@pytest.mark.parametrize(
    ("terminal", "shown", "bar"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_a_bar_is_there_in_a_terminal_alone_and_changes_nothing(monkeypatch, terminal, shown, bar):
    screen = io.StringIO()
    screen.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", screen)
    assert list(with_bar(iter("abc"), 3, "writing coco", shown)) == ["a", "b", "c"]
    assert ("writing coco" in screen.getvalue()) == bar
