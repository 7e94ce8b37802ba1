"""A reference library from rated files that are not part of the pool."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from mixup.clusters.linearize import embed_text
from mixup.config import EmbedConfig
from mixup.errors import ConfigError, RecordError
from mixup.models.encoder import SentenceEncoder
from mixup.quality.transition import compress
from mixup.rater_config import RatedField
from mixup.records import uid_of
from mixup.stages.cell import CellSettings
from mixup.stages.rate import observed_rating
from mixup.stages.rating_counts import count_rows
from mixup.stages.reference_fit import save_library_of
from mixup.stages.regression_fit import DrawnRows
from mixup.stages.rows import read_rows
from mixup.stages.sources import Chunk, SourceFile
from mixup.stages.streams import RawRow
from mixup.text.formats import decode_line, parse_row
from mixup.workspace import Workspace


def build_from_files(
    workspace: Workspace,
    files: Sequence[SourceFile],
    rater: RatedField,
    embed: EmbedConfig,
    settings: CellSettings,
) -> None:
    """Make a library of all rated rows of some files, and the current one; runs in a worker.

    Raises:
        ConfigError: If fewer rows than ``curate.min_rated`` are rated.
    """
    rated: dict[str, tuple[str, int]] = {}
    for file in files:
        for row in read_rows(Chunk(file), max_row_bytes=8_000_000):
            found = _rated_text(row, rater)
            if found is not None:
                rated.setdefault(found[0], found[1:])
    least = settings.curate.min_rated
    if len(rated) < least:
        raise ConfigError(
            f"the rated files of the library hold {len(rated)} rated rows, at least {least} are "
            "needed (curate.min_rated)"
        )
    encoder = SentenceEncoder(
        embed.model,
        encode_tokens=embed.encode_tokens,
        on_gpu=embed.actor_gpus > 0,
        cpus=embed.actor_cpus,
    )
    vectors_ND = encoder.encode([text for text, _ in rated.values()]).vectors_ND
    good = np.flatnonzero(np.isfinite(vectors_ND).all(axis=1))
    uids = list(rated)
    ratings_N = np.array([rating for _, rating in rated.values()])[good]
    vectors_ND, uids = vectors_ND[good], [uids[row] for row in good]
    counted = count_rows(vectors_ND, ratings_N, np.arange(len(uids)), uids, len(uids), settings)
    voters = counted.voters
    library = DrawnRows([uids[row] for row in voters], vectors_ND[voters], ratings_N[voters])
    save_library_of(workspace, settings, counted.counts, library, library.none(), rated=len(rated))


def _rated_text(row: RawRow, rater: RatedField) -> tuple[str, str, int] | None:
    """The uid, text and rating class of a rated row; None for any other."""
    if row.reason:
        return None
    try:
        parsed = parse_row(row.value if row.value is not None else decode_line(row.raw))
    except RecordError:
        return None
    overall, _ = observed_rating(json.dumps(parsed.extra), rater)
    if overall is None:
        return None
    return uid_of(parsed.turns), embed_text(parsed.turns), compress(overall)
