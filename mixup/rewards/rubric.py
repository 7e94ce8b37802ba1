"""The rubric: reward components with weights, combined into one number that keeps its parts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from mixup.errors import ConfigError, ShapeError

COMPONENTS = ("quality", "alignment", "format", "coverage")

# Source: LM-Mixup code, weights 0.5 / 0.4 / 0.1; coverage is ours and costs nothing at 0.
PAPER_WEIGHTS: Mapping[str, float] = {
    "quality": 0.5,
    "alignment": 0.4,
    "format": 0.1,
    "coverage": 0.0,
}


@dataclass(frozen=True)
class Combined:
    """A combined reward and its parts.

    Attributes:
        value: the weighted mean in [0, 1]; None if any component with weight is missing.
        breakdown: weight x value of each weighted component, summing to value; None if missing.
        missing: components with weight that have no value.
    """

    value: float | None
    breakdown: dict[str, float | None]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Rubric:
    """Component weights, and replacements for single tasks.

    Attributes:
        weights: weight of each component, at least 0; components not named weigh 0.
        task_weights: task to the weights that replace ``weights`` for that task.

    Raises:
        ConfigError: on an unknown component, a negative or infinite weight, or no weight at all.
    """

    weights: Mapping[str, float] = field(default_factory=lambda: dict(PAPER_WEIGHTS))
    task_weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for weights in (self.weights, *self.task_weights.values()):
            _normalized(weights)

    def for_task(self, task: str) -> dict[str, float]:
        """The weights of a task, summing to 1, in the order of ``COMPONENTS``."""
        return _normalized(self.task_weights.get(task, self.weights))


def combine(values: Mapping[str, float | None], weights: Mapping[str, float]) -> Combined:
    """The weighted mean of component values; missing values make it None, never a default.

    Args:
        values: component to its value in [0, 1]; None, NaN or absent means missing.
        weights: component to its weight, renormalized to sum 1; weight 0 leaves a component out.

    Raises:
        ShapeError: if a value lies outside [0, 1].
        ConfigError: as for `Rubric`.
    """
    weighted = {name: weight for name, weight in _normalized(weights).items() if weight > 0}
    present = {name: _value(name, values.get(name)) for name in weighted}
    breakdown = {
        name: None if value is None else weighted[name] * value for name, value in present.items()
    }
    missing = tuple(name for name, value in present.items() if value is None)
    parts = [part for part in breakdown.values() if part is not None]
    return Combined(None if missing else min(1.0, math.fsum(parts)), breakdown, missing)


def _normalized(weights: Mapping[str, float]) -> dict[str, float]:
    unknown = sorted(set(weights) - set(COMPONENTS))
    if unknown:
        raise ConfigError(f"unknown reward {unknown[0]!r}; expected one of {COMPONENTS}")
    bad = [name for name, weight in weights.items() if not 0 <= weight < math.inf]
    if bad:
        raise ConfigError(f"weight of {bad[0]} is {weights[bad[0]]}; it must be 0 or more")
    total = math.fsum(weights.values())
    if total <= 0:
        raise ConfigError("all reward weights are 0; give at least one component a weight")
    return {name: weights.get(name, 0.0) / total for name in COMPONENTS}


def _value(name: str, value: float | None) -> float | None:
    if value is None or math.isnan(value):
        return None
    if not 0 <= value <= 1:
        raise ShapeError(f"reward {name} is {value}; a component lies between 0 and 1")
    return float(value)
