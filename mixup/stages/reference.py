"""The reference library: the rated examples that vote on quality, with T and p, fitted and kept.

It is an artifact of the workspace, ``fitted/reference/REVISION/``, reused until what decides it
changes or the number of rated rows has drifted: one new row must not move scores everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mixup.clusters.linearize import embed_text
from mixup.config import CurateConfig, EmbedConfig
from mixup.errors import ConfigError, RecordError
from mixup.models.encoder import SentenceEncoder
from mixup.quality.transition import Transition, compress, fit_transition
from mixup.records import content_key, uid_of
from mixup.stages.embed import vectors_from_arrow, vectors_to_arrow
from mixup.stages.rate import FieldRater, observed_rating
from mixup.stages.rows import read_rows
from mixup.stages.sources import Chunk, SourceFile
from mixup.stages.streams import RawRow
from mixup.text.formats import decode_line, parse_row
from mixup.workspace import Workspace

_POINTER = "fitted/reference.json"


@dataclass(frozen=True)
class Reference:
    """A fitted reference library.

    Attributes:
        revision: The key of its content and of what decided the fit.
        uids: The L records' uids.
        vectors_LD: Unit vectors.
        ratings_L: Observed rating classes 0-5.
        transition: T and p.
    """

    revision: str
    uids: list[str]
    vectors_LD: np.ndarray
    ratings_L: np.ndarray
    transition: Transition


def fit_reference(
    uids: list[str],
    vectors_LD: np.ndarray,
    ratings_L: np.ndarray,
    *,
    neighbors: int,
    smoothing: float,
    decides: object,
) -> Reference:
    """Fit T and p by co-occurrence and name the result.

    Args:
        uids: The L records.
        vectors_LD: Unit vectors.
        ratings_L: Observed ratings 0-5.
        neighbors: Neighbors counted per row.
        smoothing: Added to each count.
        decides: JSON data of what else decided the library: encoder, rater, settings.
    """
    transition = fit_transition(vectors_LD, ratings_L, neighbors=neighbors, smoothing=smoothing)
    content = sorted(zip(uids, ratings_L.tolist(), strict=True))
    revision = content_key("reference", decides, content)
    return Reference(revision, uids, vectors_LD, ratings_L, transition)


def save_reference(workspace: Workspace, reference: Reference, decides: object) -> None:
    """Write the artifact, then the pointer that makes it the current one."""
    folder = f"fitted/reference/{reference.revision}"
    table = pa.table(
        {
            "uid": reference.uids,
            "rating": pa.array(reference.ratings_L, pa.int8()),
            "vector": vectors_to_arrow(reference.vectors_LD),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    workspace.write_bytes(f"{folder}/library.parquet", sink.getvalue().to_pybytes())
    transition = reference.transition
    workspace.write_json(
        f"{folder}/transition.json",
        {
            "classes": transition.classes.tolist(),
            "matrix": transition.matrix_CC.tolist(),
            "prior": transition.prior_C.tolist(),
        },
    )
    workspace.write_json(
        _POINTER,
        {
            "revision": reference.revision,
            "decides": content_key(decides),
            "rated": len(reference.uids),
        },
    )


def current_reference(
    workspace: Workspace, decides: object, *, rated: int | None = None, refit_at: float = 0.0
) -> Reference | None:
    """The kept library, unless what decides it differs or the rated rows drifted too far.

    Args:
        workspace: The workspace.
        decides: What decides the library today.
        rated: How many rows are rated today; None where the library does not come from the pool.
        refit_at: The share by which that may differ from the number at the fit.
    """
    pointer = workspace.read_json(_POINTER)
    if pointer is None or pointer["decides"] != content_key(decides):
        return None
    if rated is not None and abs(rated - pointer["rated"]) > refit_at * pointer["rated"]:
        return None
    return load_reference(workspace, pointer["revision"])


def reference_revision(workspace: Workspace, decides: object) -> str | None:
    """The revision of the current library, or None where none was fitted for what decides it."""
    pointer = workspace.read_json(_POINTER)
    if pointer is None or pointer["decides"] != content_key(decides):
        return None
    return pointer["revision"]


def forget_reference(workspace: Workspace) -> None:
    """Leave the workspace without a current library: too little is rated to judge by."""
    if workspace.read_json(_POINTER) is not None:
        workspace.write_json(_POINTER, {"revision": None, "decides": None, "rated": 0})


def load_reference(workspace: Workspace, revision: str) -> Reference:
    """Read a library by its revision."""
    folder = f"fitted/reference/{revision}"
    filesystem, root = workspace.filesystem()
    table = pq.read_table(f"{root}/{folder}/library.parquet", filesystem=filesystem)
    fitted = workspace.read_json(f"{folder}/transition.json")
    transition = Transition(
        np.array(fitted["classes"]), np.array(fitted["matrix"]), np.array(fitted["prior"])
    )
    vectors_LD = vectors_from_arrow(table["vector"])
    ratings_L = table["rating"].to_numpy().astype(np.int64)
    return Reference(revision, table["uid"].to_pylist(), vectors_LD, ratings_L, transition)


def build_from_files(
    workspace: Workspace,
    files: Sequence[SourceFile],
    rater: FieldRater,
    embed: EmbedConfig,
    curate: CurateConfig,
    decides: object,
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
    if len(rated) < curate.min_rated:
        raise ConfigError(
            f"rate.library holds {len(rated)} rated rows, at least {curate.min_rated} are needed"
        )
    encoder = SentenceEncoder(
        embed.model,
        encode_rows=embed.encode_rows,
        on_gpu=embed.actor_gpus > 0,
        cpus=embed.actor_cpus,
    )
    vectors_ND = encoder.encode([text for text, _ in rated.values()]).vectors_ND
    good = np.flatnonzero(np.isfinite(vectors_ND).all(axis=1))
    uids = list(rated)
    ratings_N = np.array([rating for _, rating in rated.values()])
    reference = fit_reference(
        [uids[row] for row in good],
        vectors_ND[good],
        ratings_N[good],
        neighbors=curate.transition_neighbors,
        smoothing=curate.smoothing,
        decides=decides,
    )
    save_reference(workspace, reference, decides)


def _rated_text(row: RawRow, rater: FieldRater) -> tuple[str, str, int] | None:
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
