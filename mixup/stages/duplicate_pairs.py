"""The texts of a few near-duplicates and of the rows that represent them, for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from mixup.errors import LedgerError
from mixup.records import bucket_of
from mixup.report.curation import DuplicatePair, PairText, pair_text
from mixup.stages.pool import pool_occurrences
from mixup.stages.survey_scores import RowPair
from mixup.tables import Snapshot, scan_files
from mixup.workspace import Workspace


def duplicate_pairs(
    workspace: Workspace,
    tables: Mapping[str, Snapshot],
    pool: Sequence[str],
    pairs: Sequence[RowPair],
) -> tuple[DuplicatePair, ...]:
    """The pairs with their texts, cut, and their sources; runs in a worker.

    Raises:
        LedgerError: If a row of a pair is not among the records.
    """
    wanted = {uid for pair in pairs for uid in (pair.uid, pair.duplicate_of)}
    texts: dict[str, PairText] = {}
    for bucket in sorted({bucket_of(uid, workspace.buckets) for uid in wanted}):
        mine = [uid for uid in sorted(wanted) if bucket_of(uid, workspace.buckets) == bucket]
        texts.update(_texts(workspace, tables, pool, bucket, mine))
    if missing := sorted(wanted - set(texts)):
        raise LedgerError(f"near-duplicates without a record: {', '.join(missing)}")
    return tuple(
        DuplicatePair(texts[pair.uid], texts[pair.duplicate_of], pair.similarity, pair.same_source)
        for pair in pairs
    )


def _texts(
    workspace: Workspace,
    tables: Mapping[str, Snapshot],
    pool: Sequence[str],
    bucket: int,
    uids: Sequence[str],
) -> dict[str, PairText]:
    wanted = pa.array(uids, pa.string())
    places = pool_occurrences(workspace, tables["occurrences"], bucket, pool)
    places = places.filter(pc.is_in(places["uid"], value_set=wanted))
    sources: dict[str, set[str]] = {uid: set() for uid in uids}
    for uid, source in zip(places["uid"].to_pylist(), places["source"].to_pylist(), strict=True):
        sources[uid].update([] if source is None else [source])
    found: dict[str, PairText] = {}
    paths = tables["records"].in_bucket(bucket)
    within = {"uid": (uids[0], uids[-1])}
    for part in scan_files(workspace, "records", paths, ["uid", "turns"], within=within):
        for row in part.filter(pc.is_in(part["uid"], value_set=wanted)).to_pylist():
            text = "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in row["turns"])
            found[row["uid"]] = pair_text(row["uid"], text, sorted(sources[row["uid"]]))
    return found
