"""The report page of a mixture: one self-contained HTML string without a script."""

from __future__ import annotations

from collections.abc import Mapping

from mixup.mixture.splits import SPLITS
from mixup.report.mixture_digest import MixtureDigest
from mixup.report.page import Bar, bars_of, template
from mixup.report.wording import sentence, words

_CLASSES = tuple(str(rating) for rating in range(6))


def render_mixture_page(digest: MixtureDigest) -> str:
    """The report of a mixture as one HTML document.

    The page has no script, and its content policy forbids every request. All text of the data is
    escaped, and control characters in it are shown by their code points.
    """
    html = template("mixture.html.j2").render(
        digest=digest,
        splits=SPLITS,
        classes=_CLASSES,
        fates=_worded(digest.fates, "plain"),
        reasons={task: _worded(_failures(made), "dropped") for task, made in digest.made.items()},
        wanted={task: sum(made.values()) for task, made in digest.made.items()},
        degradations=_by_count(digest.classes),
        plans=_worded(digest.plans, "plain"),
        rules=bars_of(digest.rules, "plain"),
        sources=_worded(digest.sources, "plain"),
        sizes=_in_order(digest.sizes),
        lengths=_in_order(digest.lengths),
        licences=bars_of(digest.licences, "plain"),
        quarantine=_worded(digest.quarantine, "dropped"),
        slowest=max((row.seconds or 0.0 for row in digest.stages), default=0.0),
    )
    return html.lstrip()


def _failures(made: Mapping[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in made.items() if reason != "made"}


def _worded(counts: Mapping[str, int], kind: str) -> list[Bar]:
    return bars_of({sentence(words(name)): count for name, count in counts.items()}, kind)


def _in_order(counts: Mapping[str, int]) -> list[Bar]:
    """Counts by number or by a range that begins with one."""
    ordered = sorted(counts.items(), key=lambda item: int(item[0].split()[0]))
    total = sum(counts.values())
    return [Bar(name, count, count / total if total else None, "plain") for name, count in ordered]


def _by_count(classes: Mapping[str, Mapping[str, int]]) -> list[tuple[str, Mapping[str, int], int]]:
    """Each degradation with its variants by class and in all, the most frequent first."""
    found = [(name, counts, sum(counts.values())) for name, counts in classes.items()]
    return sorted(found, key=lambda one: (-one[2], one[0]))
