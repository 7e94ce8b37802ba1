"""The plan of a mixture: what is decided before it starts, and whether there is anything to do."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from mixup.config import Similarity
from mixup.errors import ConfigError
from mixup.mixture.degraded import VariantSettings
from mixup.mixture.fusion_groups import FusionSettings
from mixup.mixture.splits import SplitShares
from mixup.mixture_config import EndpointTeacher, MixtureConfig, RulesTeacher
from mixup.models.encoder import similarity_of
from mixup.models.folders import model_revision
from mixup.pipelines.rating import rating_state, revision_of
from mixup.pipelines.refresh_plan import bucket_count
from mixup.rater_config import JudgeRater
from mixup.records import content_key
from mixup.refresh_config import ClusterConfig, CurateConfig
from mixup.report.digest import ModelUsed
from mixup.stages.candidates import Teaching, teach_state
from mixup.stages.cell import CellSettings
from mixup.stages.collect import collect_state, items_file
from mixup.stages.cut_article import text_rules
from mixup.stages.decontaminate import decontaminate_state, evaluation_files, questions_revision
from mixup.stages.embed import embed_state
from mixup.stages.judge import check_endpoint, check_judge
from mixup.stages.leaks import leaks_state
from mixup.stages.mix import mix_key, mix_state
from mixup.stages.mix_rows import MixSettings
from mixup.stages.near_segments import near_state
from mixup.stages.publish_mixture import current_mixture
from mixup.stages.recorded_files import unread_files
from mixup.stages.run import RunContext
from mixup.stages.sources import TEXTS, SourceFile, chunks_of, find_files
from mixup.stages.teach import model_teacher
from mixup.stages.teach_rules import rules_teacher
from mixup.tables import snapshot, version
from mixup.workspace import Workspace

PUBLISHED = ("mixture", "targets", "leaks")
"""The tables that a published mixture is made from."""
BY_CONSTRUCTION = 5
"""The class of an item that is cut from text by rule."""
_LEAST_BUCKETS = 8
"""So many parts of the text are worked on at a time, and committed one by one."""
_MOST_BUCKETS = 256
_TEXT_BUCKET_BYTES = 8_000_000
"""Of raw text: its items and pairs take about ten times as much."""


@dataclass(frozen=True)
class MixturePlan:
    """Everything that is decided before a run starts.

    Attributes:
        config: The job's config.
        texts: The files of raw text.
        files: The files of the pool.
        similarity: The encoder's thresholds.
        encoder: The encoder's revision.
        rater: The rater's revision.
        teacher: The teacher's revision.
        evaluation: Files of evaluation questions that may not get into a pair.
        classes: The class of unrated rows by the fingerprint of their file.
    """

    config: MixtureConfig
    texts: Sequence[SourceFile]
    files: Sequence[SourceFile]
    similarity: Similarity
    encoder: str
    rater: str
    teacher: str
    evaluation: Sequence[SourceFile]
    classes: dict[str, int]

    @property
    def questions(self) -> str | None:
        """The revision of the index of evaluation questions; None where none are looked for."""
        return questions_revision(self.config.decontaminate, self.evaluation)

    @property
    def buckets(self) -> int:
        """Into how many buckets a new workspace divides its keys."""
        ingest = self.config.ingest
        rows = bucket_count(self.files, ingest.bucket_bytes) if ingest else 1
        whole = self.config.text.chunk_bytes
        size = sum(chunk.size for file in self.texts for chunk in chunks_of(file, whole))
        texts = min(_MOST_BUCKETS, -(-size // _TEXT_BUCKET_BYTES))
        return max(_LEAST_BUCKETS, rows, texts)

    def pool(self, read: Collection[str]) -> tuple[str, ...]:
        """The files of the pool, those of items among them, as far as they were read; sorted."""
        there = set(read)
        rows = [file.fingerprint for file in self.files if file.fingerprint in there]
        texts = [items_file(text, self.teacher) for text in self.text_files(read)]
        return tuple(sorted([*rows, *texts]))

    def text_files(self, read: Collection[str]) -> list[str]:
        """The files of raw text, as far as they were read."""
        there = set(read)
        return [file.fingerprint for file in self.texts if file.fingerprint in there]

    def teaching(self, workspace: Workspace, read: Collection[str]) -> Teaching:
        """What the teacher is to make, and of what, as the tables are now."""
        licences = self.config.licences
        return Teaching(
            workspace=workspace,
            tables={name: snapshot(workspace, name) for name in ("segments", "candidates")},
            files=self.text_files(read),
            tasks=self.config.tasks,
            teacher=self.teacher,
            seed=self.config.seed,
            licences=None if licences is None else tuple(licences),
        )

    @cached_property
    def settings(self) -> MixSettings:
        """What decides pairs besides the rows."""
        config = self.config
        items = [items_file(file.fingerprint, self.teacher) for file in self.texts]
        by_rules = isinstance(config.teacher, RulesTeacher)
        made = dict.fromkeys(items, BY_CONSTRUCTION) if by_rules else {}
        variants = config.variants.model_dump(exclude={"neighbors", "neighbor_floor"})
        floor = self.similarity.cluster_floor
        fuse, near = config.fuse, self.similarity.near_duplicate
        asked = config.variants.neighbor_floor
        return MixSettings(
            cells=self._cells(),
            tasks=tuple(config.tasks),
            seed=config.seed,
            variants=VariantSettings(**variants),
            fusion=FusionSettings(
                share=fuse.share,
                floor=floor if fuse.floor is None else fuse.floor,
                ceiling=near,
                most=fuse.most,
            ),
            shares=SplitShares(**config.splits.model_dump(exclude={"near_duplicate"})),
            thought_share=config.thought_share,
            neighbors=config.variants.neighbors,
            neighbor_floor=floor if asked is None else asked,
            near_duplicate=near,
            licences=None if config.licences is None else tuple(config.licences),
            classes={**self.classes, **made},
            items=frozenset(items),
            rated_by="judge" if isinstance(config.rate, JudgeRater) else "column",
            teacher=self.teacher,
        )

    def _cells(self) -> CellSettings:
        cells = self.config.cells
        return CellSettings(
            curate=CurateConfig(cell_rows=cells.rows, cell_copies=cells.copies),
            cluster=ClusterConfig(),
            similarity=self.similarity,
            encoder=self.encoder,
            rater=self.rater,
            only_rated=True,
            licences=None,
            questions=self.questions,
        )

    def models(self) -> list[ModelUsed]:
        """The models that take part."""
        config = self.config
        found = [ModelUsed("encoder", config.embed.model, self.encoder)]
        if self.texts:
            name = "rules" if isinstance(config.teacher, RulesTeacher) else config.teacher.model
            found.append(ModelUsed("teacher", name, self.teacher))
        if isinstance(config.rate, JudgeRater):
            found.append(ModelUsed("judge", config.rate.engine.model, self.rater))
        return found


def make_plan(config: MixtureConfig) -> MixturePlan:
    """Find the files and models that a config names.

    Raises:
        ConfigError: If one of them is missing.
    """
    if isinstance(config.rate, JudgeRater):
        check_judge(config.rate)
    if isinstance(config.teacher, EndpointTeacher):
        check_endpoint(config.teacher, "teacher")
    texts = [replace(file, rules=text_rules(config.text)) for file in _texts(config)]
    files: list[SourceFile] = []
    if config.ingest is not None:
        rules = content_key(config.ingest.licence, config.ingest.max_row_bytes)
        files = [replace(file, rules=rules) for file in find_files(config.ingest.paths)]
    return MixturePlan(
        config=config,
        texts=texts,
        files=files,
        similarity=similarity_of(config.embed.model, config.embed.similarity),
        encoder=model_revision(config.embed.model),
        rater=revision_of(config.rate),
        teacher=_teacher(config),
        evaluation=evaluation_files(config.decontaminate),
        classes=_classes(config, files),
    )


def _texts(config: MixtureConfig) -> list[SourceFile]:
    return find_files(config.text.paths, TEXTS)


def _teacher(config: MixtureConfig) -> str:
    if isinstance(config.teacher, RulesTeacher):
        return rules_teacher(config.seed)
    return model_teacher(config.teacher)


def _classes(config: MixtureConfig, files: Sequence[SourceFile]) -> dict[str, int]:
    """The class of each file that a pattern names.

    Raises:
        ConfigError: If a pattern names no file.
    """
    names = {file.fingerprint: Path(file.shown).name for file in files}
    for pattern in config.classes:
        if not any(fnmatchcase(name, pattern) for name in names.values()):
            there = ", ".join(sorted(names.values())[:8]) or "none"
            raise ConfigError(f"classes: {pattern!r} fits no file of ingest.paths; there: {there}")
    return {
        fingerprint: next(
            rating for pattern, rating in config.classes.items() if fnmatchcase(name, pattern)
        )
        for fingerprint, name in names.items()
        if any(fnmatchcase(name, pattern) for pattern in config.classes)
    }


def mixture_decides(context: RunContext, plan: MixturePlan) -> list[Any]:
    """JSON data of all that a published mixture is made from."""
    versions = {name: version(context.workspace, name) for name in PUBLISHED}
    return [mix_key(plan.settings), context.pool_key, versions]


def up_to_date(workspace: Workspace, plan: MixturePlan) -> str | None:
    """The current mixture's name when no stage has anything to do, decided without Ray."""
    current = current_mixture(workspace)
    inputs = [*plan.files, *plan.texts]
    if current is None or unread_files(workspace, inputs):
        return None
    read = [file.fingerprint for file in inputs]
    context = RunContext(workspace, "", -1, plan.pool(read))
    states = [
        embed_state(context, plan.encoder),
        rating_state(context, plan.config.rate, plan.rater),
        mix_state(context, plan.settings),
        leaks_state(context, plan.config.splits.near_duplicate),
    ]
    if plan.texts:
        work = plan.teaching(workspace, read)
        states += [
            near_state(context, plan.config.text.near_duplicate, work.files),
            teach_state(context, work),
            collect_state(context, plan.teacher, work.files),
        ]
    if plan.questions is not None:
        states.append(decontaminate_state(context, plan.questions))
    fresh = current[1] == content_key(mixture_decides(context, plan))
    return current[0] if fresh and all(state.is_current for state in states) else None
