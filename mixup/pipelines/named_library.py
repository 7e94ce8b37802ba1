"""The library that a job is told to compare with: a built one by its path, or rated files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mixup.config import EmbedConfig
from mixup.rater_config import RatedField
from mixup.records import content_key
from mixup.stages.cell import CellSettings
from mixup.stages.library_folder import (
    BuiltLibrary,
    check_encoder,
    find_library,
    take_library,
)
from mixup.stages.reference import is_reference_current
from mixup.stages.reference_files import build_from_files
from mixup.stages.sources import ROWS, SourceFile, find_files
from mixup.workspace import Workspace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NamedLibrary:
    """What a config names to compare with; nothing where both are empty.

    Attributes:
        files: Rated files, of which a library is made.
        built: A library that `mixup build-reference` made.
    """

    files: Sequence[SourceFile] = ()
    built: BuiltLibrary | None = None

    @property
    def key(self) -> str | None:
        """A key of the rows that vote; None where nothing is named."""
        if self.built is not None:
            return self.built.revision
        return content_key([file.fingerprint for file in self.files]) if self.files else None


def named_library(paths: Sequence[str], key: str, embed: EmbedConfig, encoder: str) -> NamedLibrary:
    """Find what some paths name.

    Args:
        paths: A built library's folder or workspace alone, or rated files.
        key: The config's key that holds them, for messages.
        embed: The encoder that is used.
        encoder: Its revision.

    Raises:
        ConfigError: If a path names nothing, a built library stands beside others, or it has
            another encoder.
    """
    built = find_library(paths, key)
    if built is None:
        return NamedLibrary(tuple(find_files(paths, replace(ROWS, key=key))))
    check_encoder(built, model=embed.model, revision=encoder)
    return NamedLibrary(built=built)


def ensure_library(
    workspace: Workspace,
    named: NamedLibrary,
    rater: RatedField,
    embed: EmbedConfig,
    settings: CellSettings,
) -> None:
    """Make what is named the current library of a workspace, where it is not that yet.

    Args:
        workspace: Where the library is kept.
        named: What is named; of nothing there is nothing to do.
        rater: How a rating is read from a row of the files.
        embed: The encoder that reads them.
        settings: What decides.

    Raises:
        ConfigError: If a file of a built library is missing or another, or too few rows are rated.
    """
    import ray

    if named.key is None or is_reference_current(workspace, settings.scoring()):
        return
    if named.built is not None:
        logger.info("taking the library %s", named.built.location)
        taking = ray.remote(num_cpus=0.1)(take_library)
        ray.get(taking.remote(workspace, named.built, settings))
        return
    logger.info("building the reference library from %d file(s)", len(named.files))
    building = ray.remote(num_cpus=embed.actor_cpus, num_gpus=embed.actor_gpus)(build_from_files)
    ray.get(building.remote(workspace, named.files, rater, embed, settings))
