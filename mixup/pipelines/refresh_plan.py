"""The plan of a refresh: what is decided before it starts, and whether there is anything to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mixup.actors.reward_settings import RewardSettings
from mixup.config import Similarity
from mixup.errors import ConfigError
from mixup.models.encoder import similarity_of
from mixup.models.folders import model_revision
from mixup.pipelines.named_library import NamedLibrary, named_library
from mixup.pipelines.rating import rating_state, revision_of
from mixup.rater_config import JudgeRater, ReferenceRater
from mixup.records import content_key
from mixup.refresh_config import RefreshConfig
from mixup.report.digest import ModelUsed
from mixup.stages.cell import CellSettings
from mixup.stages.curate import curate_state
from mixup.stages.decontaminate import (
    decontaminate_state,
    evaluation_files,
    questions_revision,
)
from mixup.stages.distill import distill_state
from mixup.stages.embed import embed_state
from mixup.stages.judge import check_judge
from mixup.stages.library_folder import check_predictor
from mixup.stages.publish import (
    current_release,
)
from mixup.stages.recorded_files import unread_files
from mixup.stages.reference import (
    current_fit,
    reference_revision,
)
from mixup.stages.reward import reward_state
from mixup.stages.run import RunContext
from mixup.stages.scores import effective_votes
from mixup.stages.sources import SourceFile, find_files
from mixup.stages.survey import SURVEYED
from mixup.stages.undistilled import Distiller
from mixup.stages.verdicts import Judge
from mixup.tables import version
from mixup.text.prompts import answer_pattern
from mixup.text.tasks import TASKS
from mixup.workspace import Workspace

RELEASED = (*SURVEYED, "records", "files", "quarantine")
_MOST_BUCKETS = 256


@dataclass(frozen=True)
class Plan:
    """Everything that is decided before a run starts.

    Attributes:
        config: The job's config.
        files: The pool's input files.
        library: What to compare with; nothing to use the pool's own ratings.
        similarity: The encoder's thresholds.
        encoder: The encoder's revision.
        rater: The rater's revision.
        distiller: The distiller, its revision and settings.
        evaluation: Files of evaluation questions that may not get into a release.
    """

    config: RefreshConfig
    files: Sequence[SourceFile]
    library: NamedLibrary
    similarity: Similarity
    encoder: str
    rater: str
    distiller: Distiller
    evaluation: Sequence[SourceFile] = ()

    @property
    def questions(self) -> str | None:
        """The revision of the index of evaluation questions; None where none are looked for."""
        return questions_revision(self.config.decontaminate, self.evaluation)

    def cells(self) -> CellSettings:
        """What decides scores and clusters."""
        return CellSettings.of(
            self.config,
            self.similarity,
            encoder=self.encoder,
            rater=self.rater,
            library=self.library.key,
            questions=self.questions,
        )

    def library_revision(self, workspace: Workspace) -> str | None:
        """The revision of the reference library that these settings decide, if there is one."""
        return reference_revision(workspace, self.cells().scoring())

    def rewards(self, workspace: Workspace) -> RewardSettings:
        """What decides rewards, with the workspace's present reference library."""
        fit = current_fit(workspace, self.cells().scoring())
        votes, _ = effective_votes(fit, self.config.curate)
        return RewardSettings.of(self.config, self.encoder, self.library_revision(workspace), votes)

    def judge(self, workspace: Workspace) -> Judge:
        """The rules for samples."""
        return Judge.of(self.config.reward, self.rewards(workspace), self.questions)

    def models(self, workspace: Workspace) -> list[ModelUsed]:
        """The models that take part, the reference library among them."""
        library = self.library_revision(workspace)
        found = [
            ModelUsed("encoder", self.config.embed.model, self.encoder),
            ModelUsed("distiller", self.config.distill.model, self.distiller.revision),
        ]
        rate = self.config.rate
        if isinstance(rate, JudgeRater):  # its revision is that of model, rubric and sampling
            found.append(ModelUsed("judge", rate.engine.model, self.rater))
        built = self.library.built
        name = "rated library" if built is None else f"library {built.name}"
        return found + ([ModelUsed("reference", name, library)] if library else [])


def make_plan(config: RefreshConfig) -> Plan:
    """Find the files and models that a config names.

    Raises:
        ConfigError: If one of them is missing, or a built library has another encoder.
    """
    if config.distill.structured != "none":
        for task in TASKS:  # refuses a max_tokens that leaves no room
            answer_pattern(task, max_tokens=config.distill.max_tokens)
    for task in config.reward.task_weights:
        if task not in TASKS:
            known = ", ".join(TASKS)
            raise ConfigError(f"reward.task_weights: unknown task {task!r}; known: {known}")
    if isinstance(config.rate, JudgeRater):
        check_judge(config.rate)
    rules = content_key(config.ingest.licence, config.ingest.max_row_bytes)
    paths = config.rate.library if isinstance(config.rate, ReferenceRater) else []
    encoder = model_revision(config.embed.model)
    library = named_library(paths, "rate.library", config.embed, encoder)
    if library.built is not None:
        check_predictor(library.built, config.curate.predictor)
    return Plan(
        config=config,
        files=[replace(file, rules=rules) for file in find_files(config.ingest.paths)],
        library=library,
        similarity=similarity_of(config.embed.model, config.embed.similarity),
        encoder=encoder,
        rater=revision_of(config.rate),
        distiller=Distiller(config.distill, model_revision(config.distill.model), config.seed),
        evaluation=evaluation_files(config.decontaminate),
    )


def bucket_count(files: Sequence[SourceFile], bucket_bytes: int) -> int:
    """Into how many buckets a new workspace divides its keys, by the size of its first pool."""
    size = sum(max(file.size, 0) for file in files)
    return max(1, min(_MOST_BUCKETS, -(-size // bucket_bytes)))


def pool_of(plan: Plan) -> tuple[str, ...]:
    """The fingerprints of the pool's files, sorted."""
    return tuple(sorted(file.fingerprint for file in plan.files))


def release_decides(workspace: Workspace, plan: Plan) -> list[Any]:
    """JSON data of all that a release is made from."""
    return [
        plan.config.select.model_dump(mode="json"),
        plan.judge(workspace).decides(),
        plan.config.seed,
        plan.distiller.config.max_clusters,
        pool_of(plan),
        {name: version(workspace, name) for name in RELEASED},
    ]


def up_to_date(workspace: Workspace, plan: Plan) -> str | None:
    """The current release's name when no stage has anything to do, decided without Ray."""
    current = current_release(workspace)
    if current is None or unread_files(workspace, plan.files):
        return None
    context = RunContext(workspace, "", -1, pool_of(plan))
    judge = plan.judge(workspace)
    states = (
        embed_state(context, plan.encoder),
        rating_state(context, plan.config.rate, plan.rater),
        curate_state(context, plan.cells()),
        reward_state(context, judge),
        distill_state(context, plan.distiller, judge),
    )
    if plan.questions is not None:
        states = (*states, decontaminate_state(context, plan.questions))
    fresh = current[1] == content_key(release_decides(workspace, plan))
    return current[0] if fresh and all(state.is_current for state in states) else None
