"""The page to browse rollouts: one self-contained HTML string without a script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mixup.report.page import template


@dataclass(frozen=True)
class ShownRollout:
    """A rollout as it is shown.

    Attributes:
        index: Its place in its group.
        text: What was answered.
        tokens: How many tokens that is.
        finish: ``stop`` or ``length``.
        rewards: Each component's value; None where it is missing.
        reward: The weighted mean.
        advantage: None where it is left out of the loss.
        reason: Why it is left out.
    """

    index: int
    text: str
    tokens: int
    finish: str
    rewards: Mapping[str, float | None]
    reward: float | None
    advantage: float | None
    reason: str | None


@dataclass(frozen=True)
class ShownGroup:
    """The answers to one prompt, the best first."""

    prompt: str
    task: str
    question: str
    rollouts: Sequence[ShownRollout]


@dataclass(frozen=True)
class ShownStep:
    """What a step came to, and some of its groups.

    Attributes:
        step: The step, from 0; also the version of the weights.
        attempt: The attempt that counts.
        rollouts: How many there are.
        left_out: How many of them are in no loss.
        reward: Their mean reward.
        rewards: Each component's mean.
        groups: Some of its groups; none where only the figures are shown.
    """

    step: int
    attempt: int
    rollouts: int
    left_out: int
    reward: float | None
    rewards: Mapping[str, float | None]
    groups: Sequence[ShownGroup]


@dataclass(frozen=True)
class RolloutsDigest:
    """The rollouts of a training, as far as they are shown.

    Attributes:
        training: The training's folder.
        model: The model that came of it.
        base: The base model.
        components: The reward's components, in order.
        steps: All steps, in order.
        held_out: The step, the mean reward on held-out pairs, and its standard error.
    """

    training: str
    model: str
    base: str
    components: Sequence[str]
    steps: Sequence[ShownStep]
    held_out: Sequence[tuple[int, float | None, float | None]]

    @property
    def shown(self) -> Sequence[ShownStep]:
        """The steps whose answers are shown."""
        return [step for step in self.steps if step.groups]

    @property
    def rollouts(self) -> int:
        """All rollouts that count."""
        return sum(step.rollouts for step in self.steps)


def render_rollouts_page(digest: RolloutsDigest) -> str:
    """The rollouts of a training as one HTML document.

    The page has no script, and its content policy forbids every request. All text of the data is
    escaped, and control characters in it are shown by their code points.
    """
    return template("rollouts.html.j2").render(digest=digest).lstrip()
