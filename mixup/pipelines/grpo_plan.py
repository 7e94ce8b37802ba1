"""The plan of a GRPO training: what is decided before it starts, and if there is anything to do."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from mixup.actors.reward_settings import RewardSettings
from mixup.errors import ConfigError
from mixup.grpo_config import GrpoConfig
from mixup.models.encoder import similarity_of
from mixup.models.folders import model_revision
from mixup.pipelines.named_library import NamedLibrary, named_library
from mixup.records import content_key
from mixup.refresh_config import ClusterConfig
from mixup.rewards.rubric import COMPONENTS, Rubric
from mixup.stages.cell import CellSettings
from mixup.stages.examples import AS_PAIRS, Source, example_files, mixture_split
from mixup.stages.prompt_set import PromptSet, stored_prompts
from mixup.stages.rate import rater_revision
from mixup.stages.reference import (
    load_fit,
    pointed_encoder,
    pointed_revision,
    reference_revision,
)
from mixup.stages.scores import effective_votes
from mixup.text.tasks import TASKS
from mixup.training.export import MODELS, description_of
from mixup.training.models import Base, find_base
from mixup.workspace import Workspace, open_workspace

logger = logging.getLogger(__name__)

_VERSION = "grpo-v1"
_COLD_START = "distiller"
_RATED = "fitted/rated"
"""Where libraries of rated files lie, apart from the one that a refresh keeps in the workspace."""


@dataclass(frozen=True)
class GrpoPlan:
    """What is decided before a run starts.

    Attributes:
        config: The job's config.
        base: The base model.
        source: What is asked.
        held_out: What the reward is measured on; None: nothing is.
        encoder: The encoder's revision.
        named: The library that the config names; nothing: that of a refresh is taken, or none is
            needed.
        place: Where the library lies.
    """

    config: GrpoConfig
    base: Base
    source: Source
    held_out: Source | None
    encoder: str
    named: NamedLibrary
    place: Workspace

    @property
    def needs_library(self) -> bool:
        """Whether quality has weight for any task."""
        return "quality" in _weighted(self.config)

    def cells(self) -> CellSettings:
        """What decides the library that the config names."""
        config = self.config
        return CellSettings(
            # The reward reads votes, so that no regression is needed.
            curate=config.curate.model_copy(update={"predictor": "neighbors"}),
            cluster=ClusterConfig(),
            similarity=similarity_of(config.embed.model, config.embed.similarity),
            encoder=self.encoder,
            rater=rater_revision(config.library),
            only_rated=False,
            licences=None,
            library=self.named.key,
        )

    def library(self) -> str | None:
        """The library's revision; None where it has yet to be made, or none is needed."""
        if not self.needs_library:
            return None
        if self.named.key is not None:
            return reference_revision(self.place, self.cells().scoring())
        return pointed_revision(self.place)

    def rewards(self) -> RewardSettings:
        """What decides rewards, with the library as it is now."""
        config, library = self.config, self.library()
        fit = None if library is None else load_fit(self.place, library)
        votes, _ = effective_votes(fit, config.curate)
        return RewardSettings(
            mode=config.reward.mode,
            similarity=similarity_of(config.embed.model, config.embed.similarity),
            threshold=config.curate.threshold,
            neighbors=config.curate.neighbors,
            effective_votes=votes,
            encoder=self.encoder,
            library=library,
        )

    def key(self, prompts: PromptSet, held_out: PromptSet | None) -> str:
        """The key of a training: of all that decides its weights."""
        config, rewards = self.config, self.rewards()
        measured = held_out.name if held_out and config.export.choose == "best" else None
        revisions = [rewards.revision(name) for name in _weighted(config)]
        decides = [config.decides(), revisions]
        return content_key(_VERSION, self.base.revision, prompts.name, measured, decides)

    def model_key(self, training: str) -> str:
        """The key of the model that is exported from a training."""
        return content_key(training, self.config.export.model_dump(mode="json", exclude_none=True))

    def set_of(self, workspace: Workspace, source: Source) -> PromptSet | None:
        """The prompt set of a source, if it is there."""
        limit = self.config.prompts.max_tokens
        return stored_prompts(workspace, source, self.base.name, limit)


def make_plan(config: GrpoConfig, workspace: Workspace) -> GrpoPlan:
    """Find the base model, the pairs, the encoder and the library that a config names.

    Raises:
        ConfigError: If one of them is missing.
    """
    for task in config.reward.task_weights:
        if task not in TASKS:
            known = ", ".join(TASKS)
            raise ConfigError(f"reward.task_weights: unknown task {task!r}; known: {known}")
    similarity_of(config.embed.model, config.embed.similarity)
    source = _source(config, config.prompts.paths, config.prompts.split, "prompts.paths")
    encoder = model_revision(config.embed.model)
    plan = GrpoPlan(
        config=config,
        base=find_base(config.model or _cold_start(workspace)),
        source=source,
        held_out=_held_out_source(config, source) if config.held_out.max_rows else None,
        encoder=encoder,
        named=named_library(config.library.paths, "library.paths", config.embed, encoder),
        place=_place(config, workspace),
    )
    if plan.needs_library and plan.named.key is None:
        _check_fitted(plan)
    return plan


def _check_fitted(plan: GrpoPlan) -> None:
    """Check the library that a refresh has fitted.

    Raises:
        ConfigError: If there is none, or it has another encoder.
    """
    if plan.library() is None:
        raise ConfigError(
            f"quality has weight, but {plan.place.uri} has no reference library; name a built one "
            "or rated files (library.paths), or a workspace whose refresh fitted one "
            "(library.workspace), or set reward.weights={quality: 0, ...}"
        )
    held = pointed_encoder(plan.place) or "unknown"
    if held != plan.encoder:
        raise ConfigError(
            f"the reference library of {plan.place.uri} was fitted with another encoder (revision "
            f"{held[:12]}) than embed.model={plan.config.embed.model!r} (revision "
            f"{plan.encoder[:12]}), and vectors of two encoders cannot be compared; use the "
            "encoder of that refresh, or name rated files (library.paths)"
        )


def up_to_date(workspace: Workspace, plan: GrpoPlan) -> bool:
    """Whether the model is there and nothing that decides it has changed, told without Ray."""
    described = description_of(workspace, plan.config.name)
    prompts = plan.set_of(workspace, plan.source)
    held_out = None if plan.held_out is None else plan.set_of(workspace, plan.held_out)
    if described is None or prompts is None or (plan.held_out is not None and held_out is None):
        return False
    if plan.needs_library and plan.library() is None:
        return False
    return described["key"] == plan.model_key(plan.key(prompts, held_out))


def _weighted(config: GrpoConfig) -> list[str]:
    """The components that have weight for any task."""
    rubric = Rubric(config.reward.weights, config.reward.task_weights)
    found = {name for task in TASKS for name, weight in rubric.for_task(task).items() if weight > 0}
    return [name for name in COMPONENTS if name in found]


def _place(config: GrpoConfig, workspace: Workspace) -> Workspace:
    if config.library.paths:
        return Workspace(f"{workspace.uri}/{_RATED}")
    return (
        workspace if config.library.workspace is None else open_workspace(config.library.workspace)
    )


def _cold_start(workspace: Workspace) -> str:
    if description_of(workspace, _COLD_START) is None:
        raise ConfigError(
            f"{workspace.uri} has no model `{_COLD_START}`: run `mixup train-sft` first (preset "
            "small or paper-distiller), or name another base with `model`"
        )
    if not workspace.is_local:
        raise ConfigError(
            f"the model {MODELS}/{_COLD_START} lies in {workspace.uri}; copy its folder to where "
            "all nodes read it, and name that with `model`"
        )
    return workspace.path(f"{MODELS}/{_COLD_START}")


def _source(config: GrpoConfig, paths: list[str], split: str, key: str) -> Source:
    if not paths:
        return mixture_split(config.workspace, split)
    return example_files(paths, split=split, form="mixture", key=key, parts=AS_PAIRS)


def _held_out_source(config: GrpoConfig, source: Source) -> Source | None:
    """What the reward is measured on; None where that would be what is learned."""
    paths = config.held_out.paths or config.prompts.paths
    found = _source(config, paths, config.held_out.split, "held_out.paths")
    if found.key != source.key:
        return found
    if config.held_out.paths:
        raise ConfigError(
            f"held_out.paths {config.held_out.paths} are the pairs that are learned; name others, "
            "or set held_out.max_rows=0"
        )
    logger.info("the pairs have no splits, so nothing is held out (held_out.paths names it)")
    return None
