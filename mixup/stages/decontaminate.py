"""Decontaminate: evaluation files → an index of their questions; records → contamination.

The index is an artifact, ``fitted/questions/REVISION.npz``, made once for some evaluation files and
rules and read by every task that looks for questions, so it is never sent around.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mixup.commits import write_file
from mixup.config import DecontaminateConfig
from mixup.cover import uncovered
from mixup.errors import ConfigError, RecordError, TableError
from mixup.ledger import StageCounts
from mixup.records import TABLES, content_key
from mixup.selection.decontaminate import (
    EXACT,
    NGRAM,
    Match,
    OverlapRules,
    Question,
    QuestionIndex,
)
from mixup.selection.questions import QUESTION_COLUMNS, question_columns, question_of
from mixup.stages.compact import compact
from mixup.stages.cover import TASK_CPUS
from mixup.stages.manifests import Manifest, commit_stream, run_tasks
from mixup.stages.rows import RawRow, read_rows
from mixup.stages.run import RunContext, StageState, Stopwatch, stage_state
from mixup.stages.sources import Chunk, SourceFile, find_files
from mixup.tables import Snapshot, changed_buckets, read_files, scan_files, snapshot
from mixup.text.formats import decode_line
from mixup.workspace import Workspace

logger = logging.getLogger(__name__)

CLEAN = "clean"
_VERSION = "questions-v1"
_ROW_BYTES = 64_000_000
_IN_FLIGHT = 32
_TRAINING = ("train", "training")


def evaluation_files(config: DecontaminateConfig) -> list[SourceFile]:
    """The evaluation files of a config, each looked into; empty where there are none.

    Raises:
        ConfigError: If a path names nothing, or the first row of a file has no question column.
    """
    try:
        files = find_files(config.paths)
    except ConfigError as error:
        raise ConfigError(str(error).replace("ingest.paths", "decontaminate.paths")) from error
    for file in files:
        for row in islice(_rows(file), 1):
            if not question_columns(list(row[1]), config.columns):
                raise _without_question(file, list(row[1]), config)
    return files


def questions_revision(config: DecontaminateConfig, files: Sequence[SourceFile]) -> str | None:
    """The revision of the index of these files under these rules; None where there are none."""
    if not files:
        return None
    rules = config.model_dump(mode="json", exclude={"paths"})
    return content_key(_VERSION, rules, sorted(file.fingerprint for file in files))


def ensure_questions(
    workspace: Workspace, config: DecontaminateConfig, files: Sequence[SourceFile]
) -> None:
    """Make the index of the evaluation files where the workspace does not hold it.

    Raises:
        ConfigError: If an evaluation file has no question or cannot be read to its end: a question
            that is not known cannot be looked for.
    """
    revision = questions_revision(config, files)
    if revision is None or workspace.exists(_path(revision)):
        return
    watch = Stopwatch()
    index = build_index(config, files)
    workspace.write_bytes(_path(revision), index.to_bytes())
    counts = index.counts()
    total = sum(counts.values())
    logger.info("%d questions of %d evaluation files, %.1f s", total, len(counts), watch.seconds)


def build_index(config: DecontaminateConfig, files: Sequence[SourceFile]) -> QuestionIndex:
    """The index of the questions of some files.

    Raises:
        ConfigError: As ``ensure_questions``.
    """
    rules = OverlapRules(config.ngram, config.min_words, config.max_questions, config.min_share)
    questions = (question for file in files for question in read_questions(file, config))
    return QuestionIndex.build(questions, rules)


def read_questions(file: SourceFile, config: DecontaminateConfig) -> list[Question]:
    """The questions of an evaluation file.

    Rows of a training split are no evaluation questions where the file has other splits as well.

    Raises:
        ConfigError: If it has none, or a row that cannot be read.
    """
    found: list[tuple[str, Question]] = []
    names: list[str] = []
    for place, row in _rows(file):
        names = names or list(row)
        text = question_of(row, config.columns)
        if text.strip():
            split = str(row.get("split") or "").lower()
            found.append((split, Question(file.name, f"{file.path}:{place}", text)))
    if not found:
        raise _without_question(file, names, config)
    held_out = [question for split, question in found if split not in _TRAINING]
    return held_out or [question for _, question in found]


def _rows(file: SourceFile) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The rows of an evaluation file with their offsets."""
    for raw in read_rows(Chunk(file), max_row_bytes=_ROW_BYTES):
        try:
            yield raw.offset, _row(raw)
        except RecordError as error:
            raise ConfigError(
                f"decontaminate.paths: {file.path}, offset {raw.offset}, cannot be read ({error}); "
                "mend the file or leave it out"
            ) from error


def _row(raw: RawRow) -> Mapping[str, Any]:
    if raw.reason:
        raise RecordError(raw.reason, raw.detail)
    value = raw.value if raw.value is not None else decode_line(raw.raw)
    if not isinstance(value, dict):
        raise RecordError("not_an_object", "expected columns and values")
    return value


def _without_question(
    file: SourceFile, names: Sequence[str], config: DecontaminateConfig
) -> ConfigError:
    wanted = QUESTION_COLUMNS if config.columns is None else config.columns
    held = f"it has {', '.join(names)}" if names else "it has no rows"
    return ConfigError(
        f"decontaminate.paths: {file.path} has no question in any of the columns "
        f"{', '.join(wanted)}; {held}; name the right ones in decontaminate.columns"
    )


def _path(revision: str) -> str:
    return f"fitted/questions/{revision}.npz"


def has_questions(workspace: Workspace, revision: str) -> bool:
    """Whether the workspace holds an index."""
    return workspace.exists(_path(revision))


@lru_cache(maxsize=2)
def load_questions(workspace: Workspace, revision: str) -> QuestionIndex:
    """The index with a revision; read once by each process.

    Raises:
        TableError: If the workspace does not hold it.
    """
    filesystem, root = workspace.filesystem()
    try:
        with filesystem.open_input_stream(f"{root}/{_path(revision)}") as stream:
            return QuestionIndex.from_bytes(stream.read())
    except FileNotFoundError as error:
        raise TableError(
            f"{workspace.uri}/{_path(revision)} is missing; run the job again to make it"
        ) from error


def decontaminate_state(context: RunContext, revision: str) -> StageState:
    """Whether every record has been compared with the questions of an index."""
    return stage_state(
        context.workspace,
        "decontaminate",
        "contamination",
        inputs=["records"],
        decides=revision,
    )


def decontaminate(context: RunContext, revision: str) -> StageCounts:
    """Look for the questions of an index in the records that were not compared with it yet."""
    import ray

    watch = Stopwatch()
    workspace = context.workspace
    state = decontaminate_state(context, revision)
    tables = {name: snapshot(workspace, name) for name in ("records", "contamination")}
    buckets = changed_buckets(workspace, tables["records"], state.consumed("records"))
    task = ray.remote(num_cpus=TASK_CPUS)(check_bucket)
    arguments = [(workspace, tables, bucket, revision) for bucket in buckets]
    totals = commit_stream(
        run_tasks(task, arguments, in_flight=_IN_FLIGHT),
        context.committer("contamination"),
        stage="decontaminate",
        unit="rows",
    )
    counts = StageCounts(
        stage="decontaminate",
        unit="records",
        rows_in=totals["rows"],
        parts={name: totals[name] for name in (CLEAN, EXACT, NGRAM)},
        seconds=watch.seconds,
    ).check()
    compact(context, "contamination")
    context.committer("contamination").complete(
        "contamination", state.completion(context.run, dict(counts.parts))
    )
    return counts.log()


def check_bucket(
    workspace: Workspace, tables: Mapping[str, Snapshot], bucket: int, revision: str
) -> Manifest:
    """The outcomes of the records of one bucket that lack one; runs in a worker."""
    paths = tables["records"].in_bucket(bucket)
    held = contamination_of(workspace, tables["contamination"], bucket, revision)
    missing = uncovered(read_files(workspace, "records", paths, ["uid"]), held, "uid")
    if not missing.num_rows:
        return Manifest()
    wanted, index = missing["uid"].combine_chunks(), load_questions(workspace, revision)
    rows: list[dict[str, Any]] = []
    for part in scan_files(workspace, "records", paths, ["uid", "turns"]):
        for row in part.filter(pc.is_in(part["uid"], value_set=wanted)).to_pylist():
            found = index.find([turn["content"] for turn in row["turns"]])
            rows.append(contamination_row(row["uid"], revision, found))
    written = pa.Table.from_pylist(rows, schema=TABLES["contamination"].file_schema)
    counts = {"rows": len(rows), CLEAN: 0, EXACT: 0, NGRAM: 0}
    for row in rows:
        counts[row["kind"] or CLEAN] += 1
    return Manifest([write_file(workspace, "contamination", written, bucket)], counts=counts)


def contamination_row(uid: str, revision: str, found: Match | None) -> dict[str, Any]:
    """The outcome of a record: what it holds, or nulls when it is clean."""
    names = ("kind", "benchmark", "question", "place", "matched")
    values = {name: getattr(found, name, None) for name in names}
    return {"uid": uid, "questions": revision, **values}


def contamination_of(
    workspace: Workspace,
    contamination: Snapshot,
    bucket: int | None,
    revision: str,
    *,
    only_hits: bool = False,
) -> pa.Table:
    """The outcomes under an index, in one bucket or (None) in all, or those that are hits."""
    paths = contamination.paths if bucket is None else contamination.in_bucket(bucket)
    parts = [TABLES["contamination"].file_schema.empty_table()]
    for part in scan_files(workspace, "contamination", paths):
        mine = pc.equal(part["questions"], revision)
        parts.append(part.filter(pc.and_(mine, pc.is_valid(part["kind"])) if only_hits else mine))
    return pa.concat_tables(parts)
