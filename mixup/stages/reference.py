"""The reference library: the rated examples that vote on quality, and what was fitted with it.

It is an artifact of the workspace, ``fitted/reference/REVISION/``, reused until what decides it
changes or the number of rated rows has drifted: one new row must not move scores everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic

from mixup.quality.ballots import Ballots
from mixup.quality.rating_noise import RatingNoise
from mixup.quality.rating_test import PoolThresholds
from mixup.quality.transition import RATING_CLASSES, Transition
from mixup.records import content_key
from mixup.stages.embed import vectors_from_arrow, vectors_to_arrow
from mixup.stages.regression_fit import RegressionFit, load_regression, save_regression
from mixup.workspace import Workspace

_POINTER, _FOLDER = "fitted/reference.json", "fitted/reference"


@dataclass(frozen=True)
class TaskFit:
    """What was fitted of the rated rows of one task type alone.

    Attributes:
        transition: T and p, with which votes of these rows are read.
        effective_votes: As in ``RatingFit``.
    """

    transition: Transition
    effective_votes: float | None


@dataclass(frozen=True)
class RatingFit:
    """What was fitted of a pool's ratings, beside the library.

    Attributes:
        transition: T and p, with which votes are read.
        noise: What the ratings say of the rater.
        test: Up to where ratings are not suspicious.
        effective_votes: How many independent votes the neighbors are worth; None: not to be told.
        ballots: On what the quality of the rows rests where votes tell it.
        regressed: What tells quality instead of votes; None: votes do.
        tasks: The task types whose rows vote by themselves, and what was fitted of each.
    """

    transition: Transition
    noise: RatingNoise
    test: PoolThresholds
    effective_votes: float | None
    ballots: Ballots
    regressed: RegressionFit | None = None
    tasks: Mapping[str, TaskFit] = field(default_factory=dict)


@dataclass(frozen=True)
class Reference:
    """A fitted reference library.

    Attributes:
        revision: The key of its content and of what decided the fit.
        uids: The L records' uids.
        vectors_LD: Unit vectors.
        ratings_L: Observed rating classes 0-5.
        fit: What was fitted with it.
        tasks_L: The records' task types; empty where the library is not divided by them.
    """

    revision: str
    uids: list[str]
    vectors_LD: np.ndarray
    ratings_L: np.ndarray
    fit: RatingFit
    tasks_L: Sequence[str] = ()

    @property
    def transition(self) -> Transition:
        """T and p, with which votes are read."""
        return self.fit.transition


def fit_reference(
    uids: list[str],
    vectors_LD: np.ndarray,
    ratings_L: np.ndarray,
    fit: RatingFit,
    decides: object,
    tasks_L: Sequence[str] = (),
) -> Reference:
    """A library with what was fitted for it, under the name of its content.

    Args:
        uids: The L records.
        vectors_LD: Unit vectors.
        ratings_L: Observed ratings 0-5.
        fit: What was fitted.
        decides: JSON data of what else decided the library: encoder, rater, settings.
        tasks_L: The records' task types, where the library is divided by them.
    """
    content = sorted(zip(uids, ratings_L.tolist(), strict=True))
    found: list[Any] = [_transition_json(fit.transition), _scores_json(fit)]
    if fit.tasks:
        found += [_tasks_json(fit), sorted(zip(uids, tasks_L, strict=True))]
    revision = content_key("reference", decides, content, found)
    return Reference(revision, uids, vectors_LD, ratings_L, fit, tuple(tasks_L))


def save_reference(
    workspace: Workspace, reference: Reference, decides: object, *, rated: int, encoder: str
) -> None:
    """Write the artifact, then the pointer that makes it the current one.

    Args:
        workspace: The workspace.
        reference: The library.
        decides: What decided it.
        rated: How many rows were rated at the fit.
        encoder: The revision of the encoder that made its vectors.
    """
    write_reference(workspace, f"{_FOLDER}/{reference.revision}", reference)
    workspace.write_json(
        _POINTER,
        {
            "revision": reference.revision,
            "decides": content_key(decides),
            "rated": rated,
            "encoder": encoder,
        },
    )


def write_reference(workspace: Workspace, folder: str, reference: Reference) -> None:
    """Write a library, and what was fitted with it, into a folder of the workspace."""
    columns = {
        "uid": reference.uids,
        "rating": pa.array(reference.ratings_L, pa.int8()),
        "vector": vectors_to_arrow(reference.vectors_LD),
    }
    if reference.tasks_L:
        columns["task"] = pa.array(reference.tasks_L, pa.string())
    fit = reference.fit
    _write_table(workspace, f"{folder}/library.parquet", pa.table(columns))
    _write_table(workspace, f"{folder}/ballots.parquet", _ballots_table(fit.ballots))
    workspace.write_json(f"{folder}/transition.json", _transition_json(fit.transition))
    workspace.write_json(f"{folder}/noise.json", asdict(fit.noise))
    workspace.write_json(f"{folder}/scores.json", _scores_json(fit))
    if fit.tasks:
        workspace.write_json(f"{folder}/tasks.json", _tasks_json(fit))
    if fit.regressed is not None:
        save_regression(workspace, folder, fit.regressed)


def _write_table(workspace: Workspace, path: str, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    workspace.write_bytes(path, sink.getvalue().to_pybytes())


def _transition_json(transition: Transition) -> dict[str, Any]:
    return {
        "classes": transition.classes.tolist(),
        "matrix": transition.matrix_CC.tolist(),
        "prior": transition.prior_C.tolist(),
        "given": transition.given,
    }


def _transition_of(found: Mapping[str, Any]) -> Transition:
    return Transition(
        np.array(found["classes"]),
        np.array(found["matrix"]),
        np.array(found["prior"]),
        found["given"],
    )


def _tasks_json(fit: RatingFit) -> dict[str, Any]:
    return {
        task: {**_transition_json(one.transition), "effective_votes": one.effective_votes}
        for task, one in sorted(fit.tasks.items())
    }


def _scores_json(fit: RatingFit) -> dict[str, Any]:
    return {
        "effective_votes": fit.effective_votes,
        "thresholds": fit.test.thresholds_C.tolist(),
        "untested": fit.test.reason,
    }


_VOTES = [f"votes_{rating}" for rating in range(RATING_CLASSES)]


def _ballots_table(ballots: Ballots) -> pa.Table:
    votes = dict(zip(_VOTES, ballots.votes_BC.T, strict=True))
    return pa.table({**votes, "own": ballots.own_B, "rows": ballots.rows_B})


def _ballots_of(table: pa.Table) -> Ballots:
    votes = np.column_stack([table[name].to_numpy() for name in _VOTES])
    return Ballots(votes, table["own"].to_numpy(), table["rows"].to_numpy())


def is_reference_current(
    workspace: Workspace, decides: object, *, rated: int | None = None, refit_at: float = 0.0
) -> bool:
    """Whether a library is kept that is still right; told without reading it.

    Args:
        workspace: The workspace.
        decides: What decides the library today.
        rated: How many rows are rated today; None where the library does not come from the pool.
        refit_at: The share by which that may differ from the number at the fit.
    """
    pointer = _current(workspace, decides)
    if pointer is None:
        return False
    return rated is None or abs(rated - pointer["rated"]) <= refit_at * pointer["rated"]


def current_reference(workspace: Workspace, decides: object) -> Reference | None:
    """The current library, or None where none was fitted for what decides it."""
    revision = reference_revision(workspace, decides)
    return None if revision is None else load_reference(workspace, revision)


def reference_revision(workspace: Workspace, decides: object) -> str | None:
    """The revision of the current library, or None where none was fitted for what decides it."""
    pointer = _current(workspace, decides)
    return None if pointer is None else pointer["revision"]


def _current(workspace: Workspace, decides: object) -> dict[str, Any] | None:
    pointer = workspace.read_json(_POINTER)
    if pointer is None or pointer["decides"] != content_key(decides):
        return None
    return pointer


def pointed_revision(workspace: Workspace) -> str | None:
    """The revision of the workspace's current library, whatever decided it; None: there is none."""
    pointer = workspace.read_json(_POINTER)
    return None if pointer is None else pointer["revision"]


def pointed_encoder(workspace: Workspace) -> str | None:
    """The revision of the encoder of the workspace's current library; None: it is not known."""
    pointer = workspace.read_json(_POINTER)
    return None if pointer is None else pointer.get("encoder")


def forget_reference(workspace: Workspace) -> None:
    """Leave the workspace without a current library: too little is rated to judge by."""
    if workspace.read_json(_POINTER) is not None:
        workspace.write_json(_POINTER, {"revision": None, "decides": None, "rated": 0})


def load_reference(workspace: Workspace, revision: str) -> Reference:
    """Read a library by its revision."""
    return read_reference(workspace, f"{_FOLDER}/{revision}", revision)


def read_reference(workspace: Workspace, folder: str, revision: str) -> Reference:
    """Read the library of a folder of the workspace."""
    table = _read_table(workspace, f"{folder}/library.parquet")
    tasks = table["task"].to_pylist() if "task" in table.column_names else []
    return Reference(
        revision=revision,
        uids=table["uid"].to_pylist(),
        vectors_LD=vectors_from_arrow(table["vector"]),
        ratings_L=table["rating"].to_numpy().astype(np.int64),
        fit=_read_fit(workspace, folder),
        tasks_L=tuple(tasks),
    )


def load_fit(workspace: Workspace, revision: str) -> RatingFit:
    """Read what was fitted with a library, which is small, without the library."""
    return _read_fit(workspace, f"{_FOLDER}/{revision}")


def _read_fit(workspace: Workspace, folder: str) -> RatingFit:
    scores = workspace.read_json(f"{folder}/scores.json")
    tasks = workspace.read_json(f"{folder}/tasks.json") or {}
    return RatingFit(
        transition=_transition_of(workspace.read_json(f"{folder}/transition.json")),
        noise=_NOISE.validate_python(workspace.read_json(f"{folder}/noise.json")),
        test=PoolThresholds(np.array(scores["thresholds"]), scores["untested"]),
        effective_votes=scores["effective_votes"],
        ballots=_ballots_of(_read_table(workspace, f"{folder}/ballots.parquet")),
        regressed=load_regression(workspace, folder),
        tasks={
            task: TaskFit(_transition_of(found), found["effective_votes"])
            for task, found in tasks.items()
        },
    )


def current_fit(workspace: Workspace, decides: object) -> RatingFit | None:
    """What was fitted with the current library; None where none was fitted for what decides it."""
    revision = reference_revision(workspace, decides)
    return None if revision is None else load_fit(workspace, revision)


def _read_table(workspace: Workspace, path: str) -> pa.Table:
    filesystem, root = workspace.filesystem()
    return pq.read_table(f"{root}/{path}", filesystem=filesystem)


_NOISE = pydantic.TypeAdapter(RatingNoise)
