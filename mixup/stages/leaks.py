"""Leaks: pairs that nearly repeat what another split holds → the table ``leaks``.

Splits go by article, and an article may be nearly another one, or two targets the same though
their articles differ. So the targets of all pairs are compared by MinHash over the splits, and so
are their articles; a pair of a split that gives way is left out of what is published. Tests are
never touched: what is near to one leaves the training parts.

Tasks sketch the targets of a bucket, unite the sketches of an article's segments, compare what has
a band in common, and note what was found in the buckets of the pairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixup.ledger import StageCounts
from mixup.mixture.near_text import FINE_BANDS, HASHES, agreement_of, bands_of, sketch_of, united
from mixup.records import TABLES, bucket_of
from mixup.stages.compact import compact
from mixup.stages.manifests import Manifest, commit_stream
from mixup.stages.outcomes import written
from mixup.stages.pieces import STAGING, Piece, PieceWriter, by_partition, staging
from mixup.stages.run import RunContext, StageState, Stopwatch, stage_state
from mixup.tables import Snapshot, read_files, scan_files, snapshot
from mixup.workspace import Workspace

NEAR_OTHER_SPLIT = "near_other_split"
"""Why a pair is left out."""
TARGET, ARTICLE = "target", "article"
STAYS_FIRST = ("test", "validation", "sft", "rl")
"""Of two splits that hold nearly the same the one that is named first keeps it."""

_ARTICLES = pa.schema(
    [
        ("partition", pa.int32()),
        ("article", pa.string()),
        ("split", pa.string()),
        ("sketch", pa.binary()),
    ]
)
"""Of an article either the split of its pairs, or the sketch of some of its segments."""
_BANDED = pa.schema(
    [
        ("partition", pa.int32()),
        ("band", pa.string()),
        ("kind", pa.string()),
        ("key", pa.string()),
        ("split", pa.string()),
        ("sketch", pa.binary()),
    ]
)
_FOUND = pa.schema(
    [
        ("partition", pa.int32()),
        ("kind", pa.string()),
        ("key", pa.string()),
        ("near", pa.string()),
        ("near_split", pa.string()),
        ("similarity", pa.float32()),
    ]
)


@dataclass(frozen=True)
class LeakWork:
    """What the tasks share.

    Attributes:
        workspace: The workspace.
        tables: Snapshots of ``mixture``, ``segments`` and ``leaks``.
        threshold: The least similarity of near-duplicates.
        folder: Where pieces lie in the workspace.
    """

    workspace: Workspace
    tables: Mapping[str, Snapshot]
    threshold: float
    folder: str


def leaks_state(context: RunContext, threshold: float) -> StageState:
    """Whether the splits have been compared as they are."""
    inputs = ["mixture", "segments"]
    return stage_state(context.workspace, "leaks", "leaks", inputs=inputs, decides=threshold)


def note_leaks(context: RunContext, state: StageState, threshold: float) -> StageCounts:
    """Note each pair that is nearly in another split, too.

    Raises:
        LedgerError: If a pair is neither kept nor left out.
    """
    watch = Stopwatch()
    workspace = context.workspace
    committer = context.committer("leaks")
    folder = f"{STAGING}/{context.run}-leaks"
    tables = {name: snapshot(workspace, name) for name in ("mixture", "segments", "leaks")}
    work = LeakWork(workspace, tables, threshold, folder)
    with staging(workspace, folder):
        buckets = [(bucket,) for bucket in tables["mixture"].buckets]
        banded: list[Piece] = []
        articles: list[Piece] = []
        for bands, named in context.each(sketch_targets, work, buckets):
            banded += bands
            articles += named
        parts = [(bucket,) for bucket in tables["segments"].buckets]
        for pieces in context.each(sketch_segments, work, parts):
            articles += pieces
        if parts:  # without raw text there are no articles
            groups = [(pieces,) for _, pieces in sorted(by_partition(articles).items())]
            for pieces in context.each(band_articles, work, groups):
                banded += pieces
        groups = [(pieces,) for _, pieces in sorted(by_partition(banded).items())]
        found = [piece for pieces in context.each(compare, work, groups) for piece in pieces]
        every = sorted({*tables["mixture"].buckets, *tables["leaks"].buckets})
        noted = context.each(note_bucket, work, [(found, bucket) for bucket in every])
        totals = commit_stream(noted, committer, stage="leaks", unit="pairs")
    counts = StageCounts(
        stage="leaks",
        unit="pairs",
        rows_in=totals["pairs"],
        parts={name: totals[name] for name in ("kept", NEAR_OTHER_SPLIT)},
        extra={f"near_{kind}": totals[kind] for kind in (TARGET, ARTICLE)},
        seconds=watch.seconds,
    ).check()
    compact(context, "leaks")
    committer.complete("leaks", state.completion(context.run, dict(counts.parts)))
    return counts.log()


def sketch_targets(work: LeakWork, bucket: int) -> tuple[list[Piece], list[Piece]]:
    """The bands of one bucket's targets, and the splits of their articles; runs in a worker."""
    bands = PieceWriter(work.workspace, work.folder, f"targets-{bucket:05d}")
    articles = PieceWriter(work.workspace, work.folder, f"splits-{bucket:05d}")
    paths = work.tables["mixture"].in_bucket(bucket)
    columns = ["pair", "split", "output", "articles"]
    for part in scan_files(work.workspace, "mixture", paths, columns):
        rows = part.to_pylist()
        banded = [
            row
            for pair in rows
            for row in _banded(work, TARGET, pair["pair"], pair["split"], sketch_of(pair["output"]))
        ]
        bands.add(pa.Table.from_pylist(banded, schema=_BANDED))
        known = {article: pair["split"] for pair in rows for article in pair["articles"]}
        named = [_article(work, article, split=split) for article, split in known.items()]
        articles.add(pa.Table.from_pylist(named, schema=_ARTICLES))
    bands.flush()
    articles.flush()
    return bands.pieces, articles.pieces


def _article(work: LeakWork, article: str, **known: object) -> dict[str, Any]:
    return {"partition": bucket_of(article, work.workspace.buckets), "article": article, **known}


def _banded(
    work: LeakWork, kind: str, key: str, split: str, sketch_H: np.ndarray
) -> Iterator[dict[str, Any]]:
    sketch = sketch_H.astype("<u4").tobytes()
    for band in bands_of(sketch_H, FINE_BANDS):
        partition = bucket_of(band, work.workspace.buckets)
        yield {
            "partition": partition,
            **{"band": band, "kind": kind, "key": key, "split": split, "sketch": sketch},
        }


def sketch_segments(work: LeakWork, bucket: int) -> list[Piece]:
    """The sketches of one bucket's segments by article; runs in a worker."""
    writer = PieceWriter(work.workspace, work.folder, f"segments-{bucket:05d}")
    paths = work.tables["segments"].in_bucket(bucket)
    for part in scan_files(work.workspace, "segments", paths, ["article", "sketch"]):
        rows = [_article(work, row["article"], sketch=row["sketch"]) for row in part.to_pylist()]
        writer.add(pa.Table.from_pylist(rows, schema=_ARTICLES))
    writer.flush()
    return writer.pieces


def band_articles(work: LeakWork, pieces: Sequence[Piece]) -> list[Piece]:
    """The bands of one partition's articles that are in a split; runs in a worker.

    The sketch of an article is that of all its segments' shingles.
    """
    rows = pa.concat_tables([piece.read(work.workspace) for piece in pieces])
    pairs = zip(rows["article"].to_pylist(), rows["split"].to_pylist(), strict=True)
    splits = {article: split for article, split in pairs if split is not None}
    wanted = rows.filter(
        pc.and_(
            pc.is_valid(rows["sketch"]),
            pc.is_in(rows["article"], pa.array(list(splits), pa.string())),
        )
    ).sort_by("article")
    writer = PieceWriter(work.workspace, work.folder, f"articles-{pieces[0].partition:05d}")
    names = wanted["article"].to_pylist()
    for article, places in groupby(range(len(names)), key=lambda at: str(names[at])):
        at = list(places)
        sketch = united(_sketches(wanted.slice(at[0], len(at))))
        banded = list(_banded(work, ARTICLE, article, splits[article], sketch))
        writer.add(pa.Table.from_pylist(banded, schema=_BANDED))
    writer.flush()
    return writer.pieces


def _sketches(rows: pa.Table) -> np.ndarray:
    joined = b"".join(rows["sketch"].to_pylist())
    return np.frombuffer(joined, dtype="<u4").reshape(-1, HASHES)


def compare(work: LeakWork, pieces: Sequence[Piece]) -> list[Piece]:
    """Compare over the splits what has a band in common; runs in a worker."""
    partition = pieces[0].partition
    rows = pa.concat_tables([piece.read(work.workspace) for piece in pieces])
    rows = rows.sort_by([(name, "ascending") for name in ("kind", "band", "key")])
    names = list(zip(rows["kind"].to_pylist(), rows["band"].to_pylist(), strict=True))
    nearest: dict[tuple[str, str], tuple[float, str, str]] = {}
    for (kind, _), places in groupby(range(len(names)), key=names.__getitem__):
        at = list(places)
        if len(at) < 2:
            continue
        same = rows.slice(at[0], len(at))
        for key, found in _over_splits(same, work.threshold):
            nearest[(kind, key)] = min(found, nearest.get((kind, key), found))
    made = [
        {
            "partition": bucket_of(key, work.workspace.buckets) if kind == TARGET else -1,
            **{"kind": kind, "key": key, "near": near, "near_split": split},
            "similarity": -negative,
        }
        for (kind, key), (negative, near, split) in sorted(nearest.items())
    ]
    writer = PieceWriter(work.workspace, work.folder, f"found-{partition:05d}")
    writer.add(pa.Table.from_pylist(made, schema=_FOUND))
    writer.flush()
    return writer.pieces


def _over_splits(rows: pa.Table, threshold: float) -> Iterator[tuple[str, tuple[float, str, str]]]:
    """Each row that is near to one of a split that stays: key, and (-similarity, key, split)."""
    keys, splits = rows["key"].to_pylist(), rows["split"].to_pylist()
    ranks = np.array([STAYS_FIRST.index(split) for split in splits])
    if len(set(splits)) < 2:
        return
    sketches = _sketches(rows)
    for rank in sorted(set(ranks.tolist()))[1:]:
        own, others = np.flatnonzero(ranks == rank), np.flatnonzero(ranks < rank)
        agreement = agreement_of(sketches[own], sketches[others])
        for row, shares in zip(own.tolist(), agreement, strict=True):
            near = int(others[int(shares.argmax())])  # the first of the nearest, by key
            if shares.max() >= threshold:
                yield keys[row], (-float(shares.max()), keys[near], splits[near])


def note_bucket(work: LeakWork, found: Sequence[Piece], bucket: int) -> Manifest:
    """Write the leaks of one bucket's pairs, where they differ; runs in a worker."""
    workspace = work.workspace
    of_target = _nearest(workspace, [piece for piece in found if piece.partition == bucket])
    of_article = _nearest(workspace, [piece for piece in found if piece.partition == -1])
    made: list[dict[str, Any]] = []
    pairs = 0
    paths = work.tables["mixture"].in_bucket(bucket)
    for part in scan_files(workspace, "mixture", paths, ["pair", "articles"]):
        pairs += part.num_rows
        for row in part.to_pylist():
            near = of_target.get(row["pair"]) or next(
                (of_article[name] for name in row["articles"] if name in of_article), None
            )
            if near is not None:
                made.append({**near, "pair": row["pair"]})
    held = work.tables["leaks"].in_bucket(bucket)
    before = read_files(workspace, "leaks", held)
    now = pa.Table.from_pylist(made, schema=TABLES["leaks"].file_schema)
    kinds = Counter(row["kind"] for row in made)
    counts = {"pairs": pairs, "kept": pairs - len(made), NEAR_OTHER_SPLIT: len(made), **kinds}
    return written(workspace, "leaks", bucket, before, now, held, counts)


def _nearest(workspace: Workspace, pieces: Sequence[Piece]) -> dict[str, dict[str, Any]]:
    """By its key what each is nearest to; of two bands' findings the nearer one."""
    nearest: dict[str, dict[str, Any]] = {}
    for piece in pieces:
        for row in piece.read(workspace).to_pylist():
            row.pop("partition")
            held = nearest.get(row["key"])
            if held is None or _rank(row) < _rank(held):
                nearest[row["key"]] = row
    return nearest


def _rank(row: Mapping[str, Any]) -> tuple[float, str]:
    return -row["similarity"], row["near"]


def leaked_pairs(workspace: Workspace, leaks: Snapshot, bucket: int | None = None) -> set[str]:
    """The pairs that are left out: of one bucket, or all."""
    paths = leaks.paths if bucket is None else leaks.in_bucket(bucket)
    return set(read_files(workspace, "leaks", paths, ["pair"])["pair"].to_pylist())


def kept_pairs(
    workspace: Workspace, mixture: Snapshot, leaks: Snapshot, bucket: int, columns: list[str]
) -> Iterator[pa.Table]:
    """The rows of ``mixture`` in a bucket that are no leaks, ``pair`` among the columns."""
    leaked = pa.array(sorted(leaked_pairs(workspace, leaks, bucket)), pa.string())
    for part in scan_files(workspace, "mixture", mixture.in_bucket(bucket), columns):
        yield part.filter(pc.invert(pc.is_in(part["pair"], leaked)))
