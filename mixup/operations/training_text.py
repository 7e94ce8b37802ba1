"""What a finished training says to a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixup.operations.text import labeled
from mixup.report.wording import duration


def training_lines(
    model: str, description: Mapping[str, Any], *, is_new: bool, seconds: float
) -> list[str]:
    """The summary of a finished training.

    Args:
        model: The model's folder.
        description: What it was made of.
        is_new: Whether this run made it.
        seconds: The run's wall time.
    """
    counted = labeled("examples", _examples(description))
    return _lines(model, description, counted, _losses(description), seconds, is_new=is_new)


def grpo_lines(
    model: str, description: Mapping[str, Any], *, is_new: bool, seconds: float
) -> list[str]:
    """The summary of a finished training by rewards.

    Args:
        model: The model's folder.
        description: What it was made of.
        is_new: Whether this run made it.
        seconds: The run's wall time.
    """
    counted = labeled("prompts", f"{description['prompts']:,}{_left_out(description)}")
    return _lines(model, description, counted, _rewards(description), seconds, is_new=is_new)


def _lines(
    model: str,
    description: Mapping[str, Any],
    counted: str,
    measured: list[str],
    seconds: float,
    *,
    is_new: bool,
) -> list[str]:
    lines = [
        labeled("model", model),
        labeled("base", description["base"]),
        counted,
        labeled("steps", f"{description['steps']:,}"),
        *measured,
    ]
    if not is_new:
        upshot = f"nothing to do: the model is up to date (looked for {duration(seconds)})"
        return [upshot, *lines]
    return [*lines, labeled("time", duration(seconds))]


def _rewards(description: Mapping[str, Any]) -> list[str]:
    lines = []
    first, last = description["first_reward"], description["last_reward"]
    if first is not None and last is not None:
        lines.append(labeled("reward", f"{first:.4f} to {last:.4f}"))
    measured = [reward for _, reward in description["held_out_rewards"] if reward is not None]
    if measured:
        lines.append(labeled("held out", f"{measured[0]:.4f} to {measured[-1]:.4f}"))
    return lines


def _left_out(description: Mapping[str, Any]) -> str:
    left_out = description["left_out"]
    named = ", ".join(f"{reason} {count:,}" for reason, count in sorted(left_out.items()))
    return f"; left out: {named}" if named else ""


def _examples(description: Mapping[str, Any]) -> str:
    found = f"{description['examples']:,} of {description['tokens']:,} tokens"
    return found + _left_out(description)


def _losses(description: Mapping[str, Any]) -> list[str]:
    lines = []
    if description["first_loss"] is not None:
        falls = f"{description['first_loss']:.4f} to {description['last_loss']:.4f}"
        lines.append(labeled("loss", falls))
    if measured := description["held_out_losses"]:
        lines.append(labeled("held out", f"{measured[0]:.4f} to {measured[-1]:.4f}"))
    return lines
