"""What the report of a mixture shows, as plain data; the page is a pure function of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

import pydantic

from mixup.report.digest import ModelUsed, StageRow


@dataclass(frozen=True)
class PairExample:
    """A pair to look at.

    Attributes:
        pair: Its key.
        task: Its task type.
        split: Its split.
        plan: The plan of its degradations.
        rule: The rule that made its target.
        rating: The target's class.
        rating_source: Where that is from.
        input: The variants, as the distiller reads them.
        output: The target, as the distiller is to write it.
        thought: The chain of thought, or "".
        degradations: What was done to each variant, in order.
        ratings: The class of each variant.
    """

    pair: str
    task: str
    split: str
    plan: str
    rule: str
    rating: int
    rating_source: str
    input: str
    output: str
    thought: str
    degradations: tuple[tuple[str, ...], ...]
    ratings: tuple[int, ...]


@dataclass(frozen=True)
class MixtureDigest:
    """A mixture in numbers.

    Attributes:
        name: The mixture's name.
        created_at: When it was made.
        run: The run that made it.
        config_fingerprint: A key of the config.
        pairs: Pairs by task and split.
        fates: Rows by what became of them: ``paired``, or the reason why not.
        made: Task type to the items that the teacher made of the text, and the reasons for none.
        classes: Variants by the name of a degradation and by class; one may have several names.
        plans: Pairs by plan.
        rules: Pairs by the rule that made their target.
        sources: Pairs by the source of their target's rating.
        sizes: Pairs by the number of their variants.
        lengths: Pairs by their estimated tokens, in steps of ``LENGTH_STEP``.
        licences: Pairs by licence.
        thoughts: Pairs with a chain of thought.
        keeps_facts: Pairs whose variants together promise to hold all facts.
        articles: Articles of raw text that were read, quarantined ones included.
        quarantine: Articles and rows of the pool without use, by reason.
        stages: What the stages of the run did.
        models: The models that took part.
        tables: Table to version.
        examples: Pairs of every task and plan.
        notes: Plain statements that a reader must see.
    """

    name: str
    created_at: str
    run: str
    config_fingerprint: str
    pairs: dict[str, dict[str, int]]
    fates: dict[str, int]
    made: dict[str, dict[str, int]]
    classes: dict[str, dict[str, int]]
    plans: dict[str, int]
    rules: dict[str, int]
    sources: dict[str, int]
    sizes: dict[str, int]
    lengths: dict[str, int]
    licences: dict[str, int]
    thoughts: int
    keeps_facts: int
    articles: int = 0
    quarantine: dict[str, int] = field(default_factory=dict)
    stages: tuple[StageRow, ...] = ()
    models: tuple[ModelUsed, ...] = ()
    tables: dict[str, int] = field(default_factory=dict)
    examples: tuple[PairExample, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """All pairs."""
        return sum(count for of_task in self.pairs.values() for count in of_task.values())


LENGTH_STEP = 250
"""Tokens of a step of ``MixtureDigest.lengths``."""

_ADAPTER = pydantic.TypeAdapter(MixtureDigest)


def mixture_to_json(digest: MixtureDigest) -> str:
    """A digest as JSON."""
    return json.dumps(asdict(digest), indent=1, allow_nan=False)


def mixture_from_json(text: str) -> MixtureDigest:
    """The digest that ``mixture_to_json`` wrote.

    Raises:
        pydantic.ValidationError: If the text is not a digest.
    """
    return _ADAPTER.validate_python(json.loads(text))
