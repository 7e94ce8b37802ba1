"""The page of a training's rollouts, read from their table and written beside the checkpoints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixup.report.rollouts_page import (
    RolloutsDigest,
    ShownGroup,
    ShownRollout,
    ShownStep,
    render_rollouts_page,
)
from mixup.rewards.rubric import COMPONENTS
from mixup.tables import scan_files, snapshot
from mixup.training.checkpoints import FOLDER
from mixup.training.grpo.rollouts import TABLE, counting_rollouts
from mixup.training.metrics import read_metrics
from mixup.workspace import Workspace

PAGE = "rollouts.html"
_STEPS, _GROUPS = 12, 4
"""The most steps whose answers are shown, and of each the most groups."""

_FIGURES = ["step", "attempt", "rewards", "reward", "reason"]


def write_page(workspace: Workspace, training: str, model: str, base: str) -> str:
    """Write the page of a training; its path in the workspace. Runs in a worker."""
    page = f"{FOLDER}/{training}/{PAGE}"
    digest = digest_of(workspace, training, model=model, base=base)
    html = render_rollouts_page(digest)
    workspace.write_bytes(page, html.encode("utf-8", errors="replace"))
    return page


def digest_of(workspace: Workspace, training: str, *, model: str, base: str) -> RolloutsDigest:
    """What the page shows: figures of all steps, and answers of some of them, evenly spread."""
    figures = counting_rollouts(workspace, training, _FIGURES)
    by_step: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in figures.to_pylist():
        by_step[row["step"]].append(row)
    attempts = {step: rows[0]["attempt"] for step, rows in by_step.items()}
    groups = _groups(workspace, training, {step: attempts[step] for step in _spread(by_step)})
    lines = read_metrics(workspace, f"{FOLDER}/{training}")
    return RolloutsDigest(
        training=training,
        model=model,
        base=base,
        components=COMPONENTS,
        steps=[_step(step, by_step[step], groups.get(step, ())) for step in sorted(by_step)],
        held_out=[
            (row["step"], row["reward"], row.get("standard_error"))
            for row in lines
            if row["kind"] == "held_out"
        ],
    )


def _spread(steps: Mapping[int, object]) -> list[int]:
    """Some of the steps, evenly spread, the first and the last among them."""
    ordered = sorted(steps)
    if len(ordered) <= _STEPS:
        return ordered
    places = np.linspace(0, len(ordered) - 1, _STEPS).round().astype(int)
    return [ordered[place] for place in places]


def _step(step: int, rows: Sequence[Mapping[str, Any]], groups: Sequence[ShownGroup]) -> ShownStep:
    parts: dict[str, list[float]] = {name: [] for name in COMPONENTS}
    for row in rows:
        for part in row["rewards"]:
            if part["value"] is not None:
                parts[part["component"]].append(part["value"])
    return ShownStep(
        step=step,
        attempt=rows[0]["attempt"],
        rollouts=len(rows),
        left_out=sum(row["reason"] is not None for row in rows),
        reward=_mean([row["reward"] for row in rows if row["reward"] is not None]),
        rewards={name: _mean(values) for name, values in parts.items()},
        groups=groups,
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _groups(
    workspace: Workspace, training: str, attempts: Mapping[int, int]
) -> dict[int, list[ShownGroup]]:
    """Some groups of some steps, of the attempt that counts."""
    wanted = pa.array(list(attempts), pa.int32())
    found: dict[int, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for rows in scan_files(workspace, TABLE, snapshot(workspace, TABLE).paths):
        mine = pc.and_(pc.equal(rows["run"], training), pc.is_in(rows["step"], wanted))
        for row in rows.filter(mine).to_pylist():
            if row["attempt"] == attempts[row["step"]]:
                found[row["step"]][row["prompt"]].append(row)
    return {
        step: [_group(prompts[prompt]) for prompt in sorted(prompts)[:_GROUPS]]
        for step, prompts in found.items()
    }


def _group(rows: Sequence[Mapping[str, Any]]) -> ShownGroup:
    ordered = sorted(rows, key=lambda row: (-(row["reward"] or 0.0), row["index"]))
    return ShownGroup(
        prompt=rows[0]["prompt"],
        task=rows[0]["task"],
        question=rows[0]["question"],
        rollouts=[
            ShownRollout(
                index=row["index"],
                text=row["text"],
                tokens=row["tokens"],
                finish=row["finish"],
                rewards={part["component"]: part["value"] for part in row["rewards"]},
                reward=row["reward"],
                advantage=row["advantage"],
                reason=row["reason"],
            )
            for row in ordered
        ],
    )
