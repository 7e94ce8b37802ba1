"""The plan of a library: what is decided before it starts, and whether there is anything to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mixup.config import Similarity
from mixup.errors import ConfigError
from mixup.lock import holder_of
from mixup.models.encoder import similarity_of
from mixup.models.folders import model_revision
from mixup.pipelines.refresh_plan import bucket_count
from mixup.rater_config import JudgeRater
from mixup.records import content_key
from mixup.reference_config import ReferenceConfig
from mixup.refresh_config import ClusterConfig, CurateConfig
from mixup.stages.cell import CellSettings
from mixup.stages.embed import embed_state
from mixup.stages.judge import check_judge, judge_revision, judge_state
from mixup.stages.library_folder import current_library
from mixup.stages.library_rows import READ, RatedSource
from mixup.stages.publish_mixture import FOLDER as MIXTURES
from mixup.stages.publish_mixture import current_mixture
from mixup.stages.rate import rate_state, rater_revision
from mixup.stages.recorded_files import unread_files
from mixup.stages.run import RunContext, StageState
from mixup.stages.sources import SourceFile, find_files
from mixup.tables import snapshot
from mixup.workspace import Workspace, open_workspace, resolve_location


@dataclass(frozen=True)
class ReferencePlan:
    """Everything that is decided before a run starts.

    Attributes:
        config: The job's config.
        files: The files of rated rows.
        similarity: The encoder's thresholds.
        encoder: The encoder's revision.
        rater: The rater's revision.
        mixture: The rated rows of a mixture; None where none is named.
    """

    config: ReferenceConfig
    files: Sequence[SourceFile]
    similarity: Similarity
    encoder: str
    rater: str
    mixture: RatedSource | None

    @property
    def buckets(self) -> int:
        """Into how many buckets a new workspace divides its keys."""
        ingest = self.config.ingest
        return bucket_count(self.files, ingest.bucket_bytes) if ingest else 1

    @property
    def settings(self) -> CellSettings:
        """What decides the fit."""
        return settings_of(self.config, self.similarity, self.encoder, self.rater)

    def sources(self, context: RunContext) -> list[RatedSource]:
        """Where rated rows come from, as the tables are now: the files first."""
        found = [self.mixture] if self.mixture else []
        if self.config.ingest is None:
            return found
        tables = {name: snapshot(context.workspace, name) for name in READ}
        own = RatedSource(context.workspace, tables, context.pool, self.settings, self.licences)
        return [own, *found]

    @property
    def licences(self) -> tuple[str, ...] | None:
        """The licences that are allowed; None: all."""
        licences = self.config.licences
        return None if licences is None else tuple(licences)


def settings_of(
    config: ReferenceConfig, similarity: Similarity, encoder: str, rater: str
) -> CellSettings:
    """What decides the fit, in the form in which a refresh has it."""
    fit = config.fit
    return CellSettings(
        curate=CurateConfig(
            predictor=fit.predictor,
            reliability=fit.reliability,
            transition=fit.transition,
            transition_neighbors=fit.transition_neighbors,
            neighbors=fit.neighbors,
            smoothing=fit.smoothing,
            min_rated=fit.min_rated,
        ),
        cluster=ClusterConfig(),
        similarity=similarity,
        encoder=encoder,
        rater=rater,
        only_rated=True,
        licences=None,
    )


def make_plan(config: ReferenceConfig) -> ReferencePlan:
    """Find the files, the mixture and the models that a config names.

    Raises:
        ConfigError: If one of them is missing, or the mixture has another encoder.
    """
    rate = config.rate
    files: list[SourceFile] = []
    if config.ingest is not None:
        if isinstance(rate, JudgeRater):
            check_judge(rate)
        rules = content_key(config.ingest.licence, config.ingest.max_row_bytes)
        files = [replace(file, rules=rules) for file in find_files(config.ingest.paths)]
    similarity = similarity_of(config.embed.model, config.embed.similarity)
    encoder = model_revision(config.embed.model)
    rater = judge_revision(rate) if isinstance(rate, JudgeRater) else rater_revision(rate)
    return ReferencePlan(
        config=config,
        files=files,
        similarity=similarity,
        encoder=encoder,
        rater=rater,
        mixture=None if config.mixture is None else _mixture(config, similarity, encoder),
    )


def _mixture(config: ReferenceConfig, similarity: Similarity, encoder: str) -> RatedSource:
    """The rated rows of the current mixture of a workspace.

    Raises:
        ConfigError: If there is none, its encoder is another, or a run is writing to it.
    """
    location = config.mixture or ""
    if resolve_location(location) == resolve_location(config.workspace):
        raise ConfigError("mixture is the job's own workspace; give workspace a folder of its own")
    workspace = open_workspace(location)
    current = current_mixture(workspace)
    manifest = current and workspace.read_json(f"{MIXTURES}/{current[0]}/manifest.json")
    if not manifest or "inputs" not in manifest:
        raise ConfigError(
            f"mixture: {workspace.uri} has no mixture yet; `mixup build-mixture` makes one"
        )
    holder = holder_of(workspace)
    if holder is not None and not (holder.is_on_this_boot and not holder.is_running):
        raise ConfigError(
            f"mixture: run {holder.run} is writing to {workspace.uri}; wait until it has ended"
        )
    held = next(model for model in manifest["models"] if model["role"] == "encoder")
    if held["revision"] != encoder:
        raise ConfigError(
            f"mixture: {workspace.uri} was embedded with the encoder {held['name']!r} (revision "
            f"{held['revision'][:12]}), and embed.model={config.embed.model!r} has revision "
            f"{encoder[:12]}; use the same, or run `mixup build-mixture` with this one: it embeds "
            "what is missing"
        )
    inputs = manifest["inputs"]
    return RatedSource(
        workspace=workspace,
        tables={name: snapshot(workspace, name) for name in READ},
        pool=tuple(inputs["files"]),
        settings=settings_of(config, similarity, encoder, inputs["rater"]),
        licences=None if config.licences is None else tuple(config.licences),
    )


def rating_state(context: RunContext, plan: ReferencePlan) -> StageState:
    """Whether every record has a rating outcome of the plan's rater."""
    rate = plan.config.rate
    if isinstance(rate, JudgeRater):
        return judge_state(context, rate, plan.rater)
    return rate_state(context, rate)


def library_decides(context: RunContext, plan: ReferencePlan) -> list[Any]:
    """JSON data of all that a published library is made from."""
    read = [
        [source.workspace.uri, sorted(source.pool), source.settings.rater, source.versions()]
        for source in plan.sources(context)
    ]
    return [plan.settings.scoring(), plan.config.fit.fingerprint(), plan.licences, read]


def up_to_date(workspace: Workspace, plan: ReferencePlan) -> str | None:
    """The current library's name when there is nothing to do, decided without Ray."""
    current = current_library(workspace)
    if current is None or unread_files(workspace, plan.files):
        return None
    context = RunContext(workspace, "", -1, pool_of(plan))
    states = [embed_state(context, plan.encoder), rating_state(context, plan)] if plan.files else []
    fresh = current[1] == content_key(library_decides(context, plan))
    return current[0] if fresh and all(state.is_current for state in states) else None


def pool_of(plan: ReferencePlan) -> tuple[str, ...]:
    """The fingerprints of the files, sorted."""
    return tuple(sorted(file.fingerprint for file in plan.files))
