"""The fuzzer of the row parsers for a few seconds, and that it would find what it looks for."""

from __future__ import annotations

import random
import time

import pytest
import rows as fuzzing

from mixup.text import formats


def test_a_short_search_finds_nothing(tmp_path):
    seeds, draw = fuzzing.seed_rows(), random.Random(0)
    lines = fuzzing.search_rows(draw, seeds, time.monotonic() + 1.5, tmp_path)
    files = fuzzing.search_files(draw, seeds, time.monotonic() + 1.5, tmp_path)
    assert lines.crashes + files.crashes == []
    assert lines.executions["line"] > 50
    assert files.executions["file"] > 10


def test_a_parser_that_lets_a_nul_pass_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "text_of", lambda value, name: value or "")
    found = fuzzing.search_rows(
        random.Random(0), fuzzing.seed_rows(), time.monotonic() + 2.0, tmp_path
    )
    assert found.crashes
    assert list(tmp_path.glob("crash-*-line"))


def test_places_that_come_twice_are_refused():
    with pytest.raises(AssertionError):
        fuzzing.check_places([fuzzing.RawRow(3), fuzzing.RawRow(3)])
