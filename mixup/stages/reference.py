"""The reference library: the rated examples that vote on quality, with T and p, fitted and kept.

It is an artifact of the workspace, ``fitted/reference/REVISION/``, reused until what decides it
changes or the number of rated rows has drifted: one new row must not move scores everywhere.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic

from mixup.quality.shrinkage import RatingNoise
from mixup.quality.transition import Transition
from mixup.records import content_key
from mixup.stages.embed import vectors_from_arrow, vectors_to_arrow
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
        transition: T and p, with which votes are read.
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
    transition: Transition,
    decides: object,
) -> Reference:
    """A library with the transition that was fitted for it, under the name of its content.

    Args:
        uids: The L records.
        vectors_LD: Unit vectors.
        ratings_L: Observed ratings 0-5.
        transition: T and p.
        decides: JSON data of what else decided the library: encoder, rater, settings.
    """
    content = sorted(zip(uids, ratings_L.tolist(), strict=True))
    fitted = [transition.classes.tolist(), transition.matrix_CC.tolist()]
    revision = content_key("reference", decides, content, fitted)
    return Reference(revision, uids, vectors_LD, ratings_L, transition)


def save_reference(
    workspace: Workspace,
    reference: Reference,
    decides: object,
    noise: RatingNoise,
    *,
    rated: int,
) -> None:
    """Write the artifact, then the pointer that makes it the current one.

    Args:
        workspace: The workspace.
        reference: The library.
        decides: What decided it.
        noise: What the ratings say of the rater.
        rated: How many rows were rated at the fit.
    """
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
    workspace.write_json(f"{folder}/noise.json", asdict(noise))
    workspace.write_json(
        _POINTER,
        {
            "revision": reference.revision,
            "decides": content_key(decides),
            "rated": rated,
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


def rating_noise(workspace: Workspace, revision: str | None) -> RatingNoise | None:
    """What the fit of a library found of the rater; None without a library."""
    found = None
    if revision is not None:
        found = workspace.read_json(f"fitted/reference/{revision}/noise.json")
    return None if found is None else _NOISE.validate_python(found)


_NOISE = pydantic.TypeAdapter(RatingNoise)
