"""The plan of a fine-tuning: what is decided before it starts, and if there is anything to do."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from mixup.errors import ConfigError
from mixup.models.tokenizing import Encoding
from mixup.records import content_key
from mixup.stages.examples import ExampleFiles, Source, example_files, mixture_split
from mixup.stages.token_sets import TokenSet, stored_set
from mixup.training.export import description_of
from mixup.training.models import Base, find_base
from mixup.training_config import SftConfig
from mixup.workspace import Workspace

logger = logging.getLogger(__name__)

_VERSION = "sft-v1"


@dataclass(frozen=True)
class SftPlan:
    """What is decided before a run starts.

    Attributes:
        config: The job's config.
        base: The base model.
        source: What is learned.
        held_out: What the loss is measured on; None: nothing is.
    """

    config: SftConfig
    base: Base
    source: Source
    held_out: Source | None

    @property
    def encoding(self) -> Encoding:
        """How examples become tokens."""
        examples = self.config.examples
        return Encoding(self.config.model, examples.template, examples.window)

    def key(self, tokens: TokenSet, held_out: TokenSet | None) -> str:
        """The key of a training: of all that decides its weights."""
        measured = held_out.revision if held_out and self.config.export.choose == "best" else None
        decides = self.config.decides()
        return content_key(_VERSION, self.base.revision, tokens.revision, measured, decides)

    def model_key(self, training: str) -> str:
        """The key of the model that is exported from a training."""
        return content_key(training, self.config.export.model_dump(mode="json", exclude_none=True))


def make_plan(config: SftConfig) -> SftPlan:
    """Find the base model and the examples that a config names.

    Raises:
        ConfigError: If one of them is missing.
    """
    source = _source(config, config.examples.paths, config.examples.split, "examples.paths")
    held_out = _held_out_source(config, source) if config.held_out.max_rows else None
    return SftPlan(config, find_base(config.model), source, held_out)


def _source(config: SftConfig, paths: list[str], split: str, key: str) -> Source:
    if not paths:
        return mixture_split(config.workspace, split)
    return example_files(paths, split=split, form=config.examples.form, key=key)


def _held_out_source(config: SftConfig, source: Source) -> Source | None:
    """What the loss is measured on; None where that would be what is learned."""
    paths = config.held_out.paths or config.examples.paths
    found = _unlearned(_source(config, paths, config.held_out.split, "held_out.paths"), source)
    if found is not None:
        return found
    if config.held_out.paths:
        raise ConfigError(
            f"held_out.paths {config.held_out.paths} are the examples that are learned; name "
            "others, or set held_out.max_rows=0"
        )
    logger.info("the examples have no splits, so nothing is held out (held_out.paths names it)")
    return None


def _unlearned(found: Source, source: Source) -> Source | None:
    """A source without the files that are learned; None where nothing is left of it."""
    if not (isinstance(found, ExampleFiles) and isinstance(source, ExampleFiles)):
        return found if found.key != source.key else None
    learned = {file.fingerprint for file in source.files}
    rest = tuple(file for file in found.files if file.fingerprint not in learned)
    if rest and len(rest) < len(found.files):
        logger.info("%d file(s) are learned, so not held out", len(found.files) - len(rest))
    return replace(found, files=rest) if rest else None


def up_to_date(workspace: Workspace, plan: SftPlan) -> bool:
    """Whether the model is there and nothing that decides it has changed, told without Ray."""
    described = description_of(workspace, plan.config.name)
    tokens = stored_set(workspace, [plan.source], plan.encoding)
    held_out = plan.held_out and stored_set(workspace, [plan.held_out], plan.encoding)
    if described is None or tokens is None or (plan.held_out is not None and held_out is None):
        return False
    return described["key"] == plan.model_key(plan.key(tokens, held_out))
