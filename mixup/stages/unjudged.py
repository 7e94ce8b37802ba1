"""Which records of the pool a judge has yet to rate, and what it is asked about each.

Records are taken in the order of their uid. A uid is a hash, so that the first n of them are an
unbiased draw of the pool, and the same one in every run.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mixup.clusters.linearize import embed_text
from mixup.rater_config import JudgeRater
from mixup.records import Turn
from mixup.stages.pool import missing_keys, pool_occurrences
from mixup.tables import Snapshot, scan_files
from mixup.text.judging import judge_prompt
from mixup.workspace import Workspace

_SLICE_ROWS = 256


@dataclass(frozen=True)
class Item:
    """A record to be judged.

    Attributes:
        uid: Its key.
        prompt: What the judge is asked.
        truncated: Whether the prompt holds the beginning of the record only.
        attempts: How often it was tried before.
    """

    uid: str
    prompt: str
    truncated: bool
    attempts: int


@dataclass(frozen=True)
class Census:
    """The records of one bucket.

    Attributes:
        bucket: The bucket.
        pool: Those in the pool.
        fresh: Those that were never tried.
        again: Those to be tried again.
    """

    bucket: int
    pool: int
    fresh: int
    again: int


@dataclass(frozen=True)
class Unjudged:
    """Where the records are that a judge has yet to rate.

    Attributes:
        workspace: The workspace.
        tables: Snapshots of ``occurrences``, ``records`` and ``ratings``.
        pool: Fingerprints of the pool's files.
        rater: The judge.
        revision: Its revision.
    """

    workspace: Workspace
    tables: Mapping[str, Snapshot]
    pool: Sequence[str]
    rater: JudgeRater
    revision: str

    def census(self, bucket: int) -> Census:
        """Count one bucket; runs in a worker."""
        uids, missing = self._missing(bucket)
        fresh = pc.sum(pc.equal(missing["attempts"], 0)).as_py() or 0
        return Census(bucket, len(uids), fresh, missing.num_rows - fresh)

    def items(self, bucket: int, limit: int) -> Iterator[Item]:
        """The records of one bucket to try again, and ``limit`` fresh ones; runs in a worker."""
        _, missing = self._missing(bucket)
        rows = sorted(zip(missing["uid"].to_pylist(), missing["attempts"].to_pylist(), strict=True))
        fresh = {uid for uid, attempts in rows if not attempts}
        chosen = set(heapq.nsmallest(limit, fresh))
        attempts = {uid: made for uid, made in rows if made or uid in chosen}
        for record in self._records(bucket, pa.array(list(attempts), pa.string())):
            prompt = judge_prompt(
                embed_text([Turn(**turn) for turn in record["turns"]]),
                record["task"],
                max_tokens=self.rater.max_item_tokens,
                spread=self.rater.spread_scores,
            )
            uid = record["uid"]
            yield Item(uid, prompt.text, prompt.truncated, attempts[uid])

    def _missing(self, bucket: int) -> tuple[pa.Array, pa.Table]:
        """The pool's uids in a bucket, and those without a final outcome, with their attempts."""
        rows = pool_occurrences(
            self.workspace, self.tables["occurrences"], bucket, self.pool, ["uid", "file"]
        )
        uids = pc.unique(rows["uid"])
        missing = missing_keys(
            self.workspace,
            uids,
            self.tables["ratings"],
            bucket,
            key="uid",
            where=("rater", self.revision),
        )
        return uids, missing

    def _records(self, bucket: int, uids: pa.Array) -> Iterator[dict[str, Any]]:
        """Records by uid, merged from files that are each sorted; a row group of each is held."""

        def rows_of(path: str) -> Iterator[dict[str, Any]]:
            columns = ["uid", "task", "turns"]
            for part in scan_files(self.workspace, "records", [path], columns):
                found = part.filter(pc.is_in(part["uid"], value_set=uids))
                for start in range(0, found.num_rows, _SLICE_ROWS):
                    yield from found.slice(start, _SLICE_ROWS).to_pylist()

        paths = self.tables["records"].in_bucket(bucket)
        return heapq.merge(*map(rows_of, paths), key=itemgetter("uid"))


def limits(found: Sequence[Census], max_rated: int | None) -> dict[int, int]:
    """How many fresh records of each bucket are judged: the first of the pool by uid.

    Args:
        found: Every bucket of the pool where there is a limit.
        max_rated: The most records that are judged in all, those with an outcome included.
    """
    left = sum(one.fresh for one in found)
    if max_rated is not None:
        tried = sum(one.pool - one.fresh for one in found)
        left = min(left, max(0, max_rated - tried))
    chosen: dict[int, int] = {}
    for one in sorted(found, key=lambda census: census.bucket):
        chosen[one.bucket] = min(one.fresh, left)
        left -= chosen[one.bucket]
    return chosen
