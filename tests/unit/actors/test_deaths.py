"""Deaths of actors: an actor is acted out here by guards that share a record, one after another."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from mixup.actors.deaths import MAX_IN_A_ROW, Guard, portions
from mixup.errors import ModelError


class Died(BaseException):
    """Stands for the end of the process: nothing after it runs."""


def run_to_the_end(record: Path, keys: list[str], poison: set[str]) -> tuple[list, int, list]:
    """Work on keys as Ray would: the call is sent to a new actor after each death."""
    tried: list[list[str]] = []

    def work(places: list[int]) -> list[str]:
        mine = [keys[place] for place in places]
        tried.append(mine)
        if poison & set(mine):
            raise Died
        return [f"done {key}" for key in mine]

    for deaths in range(100):
        try:
            return Guard("an actor", record).run(keys, work), deaths, tried
        except Died:
            continue
    raise AssertionError("it never ends")


def test_rows_are_tried_together_then_in_groups_then_alone():
    assert portions([0, 0, 0]) == [[0, 1, 2]]
    assert portions([1] * 9) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert portions([0, 2, 1, 3, 2, 1]) == [[0], [2], [5], [1], [4]]
    assert portions([3, 4]) == []
    assert portions([]) == []


def test_only_the_row_that_kills_is_given_up(tmp_path: Path):
    keys = [f"k{place}" for place in range(16)]
    found, deaths, tried = run_to_the_end(tmp_path / "a.json", keys, {"k6"})
    assert found == [None if key == "k6" else f"done {key}" for key in keys]
    assert deaths == 3
    assert [len(part) for part in tried][:3] == [16, 4, 4]
    assert tried[-1] != ["k6"]


def test_several_poisoned_rows_are_each_found(tmp_path: Path):
    keys = [f"k{place}" for place in range(25)]
    found, _, _ = run_to_the_end(tmp_path / "a.json", keys, {"k0", "k12", "k24"})
    assert [key for key, result in zip(keys, found, strict=True) if result is None] == [
        "k0",
        "k12",
        "k24",
    ]


def test_a_death_between_calls_costs_nothing(tmp_path: Path):
    """Killed when idle: the rows of the last call are done, and other rows know nothing of it."""
    record = tmp_path / "a.json"
    assert Guard("an actor", record).run(["a"], lambda places: ["x"]) == ["x"]
    again = Guard("an actor", record)
    assert again.run(["b", "c"], lambda places: [str(place) for place in places]) == ["0", "1"]


def test_an_actor_that_dies_of_everything_is_not_blamed_on_rows(tmp_path: Path):
    keys = [f"k{place}" for place in range(16)]
    with pytest.raises(ModelError, match=f"died {MAX_IN_A_ROW} times without finishing a row"):
        run_to_the_end(tmp_path / "a.json", keys, set(keys))


def test_what_runs_is_on_record_before_it_runs(tmp_path: Path):
    record = tmp_path / "a.json"
    seen: list[dict] = []

    def work(places: list[int]) -> list[None]:
        seen.append(json.loads(record.read_text()))
        return [None for _ in places]

    Guard("an actor", record).run(["a", "b"], work)
    assert seen[0]["running"] == [["a", "b"]]


def test_after_a_death_calls_work_one_at_a_time(tmp_path: Path):
    """Else a harmless row would be present at the deaths of another call's row."""
    record = tmp_path / "a.json"
    record.write_text(json.dumps({"deaths": {"p": 1}, "running": [["a"]], "in_a_row": 0}))
    guard = Guard("an actor", record)
    running, most = [0], [0]
    inside = threading.Lock()

    def work(places: list[int]) -> list[str]:
        with inside:
            running[0] += 1
            most[0] = max(most[0], running[0])
        threading.Event().wait(0.02)
        with inside:
            running[0] -= 1
        return ["x" for _ in places]

    calls = [threading.Thread(target=guard.run, args=([key], work)) for key in "abcd"]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert most[0] == 1
