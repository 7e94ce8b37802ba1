"""Near-duplicates over the splits: planted ones are found and leave the split that gives way."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from made_mixture import rows_of
from made_pool import in_process, make_workspace

from mixup.commits import Committer, write_by_bucket
from mixup.lock import acquire
from mixup.mixture.near_text import sketch_of, united
from mixup.records import TABLES, content_key
from mixup.stages.leaks import leaked_pairs, leaks_state, note_leaks
from mixup.stages.run import RunContext
from mixup.tables import ensure_table, snapshot
from mixup.workspace import Workspace

WORDS = [content_key("word", n)[:6] for n in range(5000)]


def prose(name: str, words: int = 120) -> str:
    """Words in an order of their own: two names have no five in a row in common."""
    return " ".join(random.Random(name).choices(WORDS, k=words))


def changed(text: str, words: int) -> str:
    """The text with its first words exchanged: that many fewer sequences in common."""
    return " ".join([*prose(f"other {text}", words).split(), *text.split()[words:]])


def pair(name: str, split: str, output: str | None = None, *articles: str) -> dict[str, Any]:
    return {
        "pair": content_key("pair", name),
        "split": split,
        "task": "qa",
        "output": prose(name) if output is None else output,
        "articles": [content_key("article", found) for found in articles or (name,)],
        "members": [],
        "degradations": [],
        "variant_ratings": [],
    }


def segment(article: str, text: str) -> dict[str, Any]:
    return {
        "segment": content_key("segment", text),
        "article": content_key("article", article),
        "file": "f",
        "text": text,
        "sketch": sketch_of(text).astype("<u4").tobytes(),
    }


def put(workspace: Workspace, table: str, rows: Sequence[dict[str, Any]]) -> None:
    written = pa.Table.from_pylist(list(rows), schema=TABLES[table].file_schema)
    writer = Committer(workspace, token=1, run="r", tables=[table], interval_s=60.0)
    writer.add(write_by_bucket(workspace, table, written))
    writer.commit()


def noted(workspace: Workspace, threshold: float = 0.8):
    for name in ("mixture", "segments"):
        ensure_table(workspace, name)
    with acquire(workspace, "r") as lease:
        context = RunContext(workspace, "r", lease.token, runner=in_process, commit_interval_s=0.0)
        return note_leaks(context, leaks_state(context, threshold), threshold)


def leaks(workspace: Workspace) -> dict[str, tuple[str, str, str]]:
    """Of each pair that is left out the kind, what it is near to, and that one's split."""
    rows = rows_of(workspace, "leaks")
    return {row["pair"]: (row["kind"], row["near"], row["near_split"]) for row in rows}


@pytest.fixture
def workspace(tmp_path):
    return make_workspace(tmp_path / "w", buckets=4)


@pytest.mark.parametrize(
    ("first", "second", "leaves"),
    [
        ("test", "rl", "second"),
        ("rl", "test", "first"),
        ("sft", "validation", "first"),
        ("rl", "sft", "first"),
        ("validation", "test", "first"),
        ("rl", "rl", None),
        ("test", "test", None),
    ],
)
def test_of_two_splits_the_one_for_training_gives_way(workspace, first, second, leaves):
    text = prose("both")
    pairs = [pair("first", first, text), pair("second", second, changed(text, 3))]
    pairs += [pair(f"other {n}", split) for n, split in enumerate(("test", "rl", "sft") * 4)]
    put(workspace, "mixture", pairs)
    counts = noted(workspace)
    assert counts.rows_in == len(pairs)
    expected = {}
    if leaves is not None:
        kept = "second" if leaves == "first" else "first"
        near = next(row for row in pairs if row["pair"] == content_key("pair", kept))
        expected = {content_key("pair", leaves): ("target", near["pair"], near["split"])}
    assert leaks(workspace) == expected
    assert counts.parts["near_other_split"] == len(expected)


def test_every_planted_leak_is_found_and_nothing_else(workspace):
    draw = random.Random(5)
    texts = [prose(f"text {n}", 150) for n in range(200)]
    put(workspace, "mixture", [pair(f"test {n}", "test", text) for n, text in enumerate(texts)])
    # Near (up to 7 of 146 sequences exchanged), and far: about half in common.
    near = {n: changed(texts[n], draw.randint(0, 7)) for n in range(0, 200, 4)}
    far = {n: changed(texts[n], 70) for n in range(1, 200, 4)}
    put(workspace, "mixture", [pair(f"near {n}", "rl", text) for n, text in near.items()])
    put(workspace, "mixture", [pair(f"far {n}", "sft", text) for n, text in far.items()])
    noted(workspace)
    found = leaks(workspace)
    assert {key for key in found} == {content_key("pair", f"near {n}") for n in near}
    for n in near:
        assert found[content_key("pair", f"near {n}")][1] == content_key("pair", f"test {n}")


def test_an_article_that_is_nearly_another_leaves_with_all_its_pairs(workspace):
    blocks = [prose(f"block {n}") for n in range(6)]
    # The same article with another beginning, so that its blocks are cut at other places.
    moved = " ".join([prose("opening", 8), *blocks]).split()
    again = [" ".join(moved[at : at + 130]) for at in range(0, len(moved), 130)]
    put(workspace, "segments", [segment("first", text) for text in blocks])
    put(workspace, "segments", [segment("again", text) for text in again])
    put(workspace, "segments", [segment("other", prose("other block"))])
    pairs = [
        pair("a", "test", None, "first"),
        pair("b", "rl", None, "again"),
        pair("c", "rl", None, "other", "again"),
        pair("d", "rl", None, "other"),
    ]
    put(workspace, "mixture", pairs)
    counts = noted(workspace)
    near = ("article", content_key("article", "first"), "test")
    assert leaks(workspace) == {content_key("pair", name): near for name in "bc"}
    assert counts.extra == {"near_target": 0, "near_article": 2}


def test_the_threshold_decides(workspace):
    text = prose("both", 104)  # 100 sequences
    put(workspace, "mixture", [pair("a", "test", text), pair("b", "rl", changed(text, 20))])
    # 80 of 120 sequences are in both.
    assert noted(workspace, 0.9).parts["near_other_split"] == 0
    assert noted(workspace, 0.5).parts["near_other_split"] == 1
    assert len(leaked_pairs(workspace, snapshot(workspace, "leaks"))) == 1
    assert noted(workspace, 0.9).parts["near_other_split"] == 0
    assert rows_of(workspace, "leaks") == []


def test_the_buckets_do_not_matter(tmp_path):
    found = []
    for buckets in (1, 7):
        workspace = make_workspace(tmp_path / f"w{buckets}", buckets=buckets)
        texts = [prose(f"text {n}") for n in range(30)]
        for split, words in (("test", 0), ("validation", 2), ("sft", 3), ("rl", 4)):
            rows = [pair(f"{split} {n}", split, changed(t, words)) for n, t in enumerate(texts)]
            put(workspace, "mixture", rows[:: 2 if split == "sft" else 3])
        noted(workspace)
        found.append(leaks(workspace))
    assert found[0] == found[1]
    assert len(found[0]) > 10


def test_the_state_is_current_until_pairs_change(workspace):
    put(workspace, "mixture", [pair("a", "test"), pair("b", "rl")])
    noted(workspace)
    context = RunContext(workspace, "", -1)
    assert leaks_state(context, 0.8).is_current
    assert not leaks_state(context, 0.7).is_current
    put(workspace, "mixture", [pair("c", "rl")])
    assert not leaks_state(context, 0.8).is_current


def test_united_sketches_are_those_of_all_text():
    # Parts that share their last and first four words have all sequences of the whole.
    words = prose("whole", 200).split()
    whole, first, second = words, words[:104], words[100:]
    parts = np.stack([sketch_of(" ".join(part)) for part in (first, second)])
    assert (united(parts) == sketch_of(" ".join(whole))).all()
