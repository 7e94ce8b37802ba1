"""The pairs of one cell of MIXTURE: variants of its targets, and targets that are fused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mixup.errors import RecordError
from mixup.mixture.degraded import Neighbor, Variants
from mixup.mixture.fuse import fused, joined_variants
from mixup.mixture.fusion_groups import fusion_groups
from mixup.mixture.items import CONSTRUCTION, Item
from mixup.mixture.pairs import Pair, Target, pair_of
from mixup.mixture.schemas import provenance_of, record_of
from mixup.mixture.variants import variants_of
from mixup.quality.neighbors import top_k
from mixup.records import Turn, estimated_tokens
from mixup.selection.licences import union
from mixup.stages.mix_rows import MixSettings
from mixup.text.tasks import single_turn

LOW = "low"
NEIGHBOR = "variant"


@dataclass
class MixCell:
    """The rows at home in a cell, oldest first, what is known of each, and what became of it.

    Attributes:
        number: The cell's id.
        rows: The rows, in the columns of ``MIX_ROWS`` without vectors.
        vectors_ND: Their unit vectors.
        splits: The split of each row's article.
        items: The rows that may be targets, by their place.
        reasons: Why the others may not.
        duplicates: The older row that a near-duplicate repeats.
        pairs: The key of the pair that a row is in.
    """

    number: int
    rows: list[dict[str, Any]]
    vectors_ND: np.ndarray
    splits: list[str]
    items: dict[int, Item] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    duplicates: dict[int, str] = field(default_factory=dict)
    pairs: dict[int, str] = field(default_factory=dict)


def turns_of(row: Mapping[str, Any]) -> tuple[Turn, ...]:
    """The turns of a row."""
    return tuple(Turn(**turn) for turn in row["turns"])


def pairs_of(cell: MixCell, settings: MixSettings) -> list[tuple[Pair, list[int]]]:
    """The cell's pairs, each with the places of the rows that its target was made from.

    What becomes of each row is noted in the cell.
    """
    places = sorted(cell.items)
    if not places:
        return []
    near = _low_neighbors(cell, places, settings)
    variants: dict[int, Variants] = {}
    for place in places:
        found = variants_of(
            cell.items[place],
            seed=settings.seed,
            settings=settings.variants,
            neighbors=[_neighbor(cell.rows[other]) for other in near.get(place, [])],
        )
        if found.reason is None:
            variants[place] = found
        else:
            cell.reasons[place] = found.reason
    places = sorted(variants)
    fused_pairs = _fused_pairs(cell, places, variants, settings)
    for pair, members in fused_pairs:
        cell.pairs.update(dict.fromkeys(members, pair.key))
    alone = [
        (_pair(cell, [place], cell.items[place], variants[place], settings), [place])
        for place in places
        if place not in cell.pairs
    ]
    for pair, members in alone:
        cell.pairs[members[0]] = pair.key
    _note_neighbors(cell, [*fused_pairs, *alone])
    return [*fused_pairs, *alone]


def _low_neighbors(
    cell: MixCell, places: Sequence[int], settings: MixSettings
) -> dict[int, list[int]]:
    """For each target the truly low-rated rows of its task and split that are near, nearest first.

    A row of another split would carry text from one split to another.
    """
    low = [
        place
        for place, row in enumerate(cell.rows)
        if cell.reasons.get(place) == LOW
        and row["rating_source"] != CONSTRUCTION
        and single_turn(turns_of(row))
    ]
    found: dict[int, list[int]] = {}
    keys = {(cell.rows[place]["task"], cell.splits[place]) for place in low}
    for key in sorted(keys) if settings.neighbors else []:
        base = [at for at in low if (cell.rows[at]["task"], cell.splits[at]) == key]
        queries = [at for at in places if (cell.rows[at]["task"], cell.splits[at]) == key]
        if not queries:
            continue
        k = min(settings.neighbors, len(base))
        near = top_k(cell.vectors_ND[queries], cell.vectors_ND[base], k)
        for query, indices, similarities in zip(
            queries, near.indices_MK.tolist(), near.similarities_MK.tolist(), strict=True
        ):
            found[query] = [
                base[at]
                for at, similar in zip(indices, similarities, strict=True)
                if settings.neighbor_floor <= similar
            ]
    return found


def _neighbor(row: dict[str, Any]) -> Neighbor:
    return Neighbor(row["uid"], turns_of(row), row["rating"], row["rating_source"])


def _fused_pairs(
    cell: MixCell, places: Sequence[int], variants: dict[int, Variants], settings: MixSettings
) -> list[tuple[Pair, list[int]]]:
    """The pairs of targets that were fused; those that no rule can join stay alone."""
    if not places:
        return []
    groups = fusion_groups(
        cell.vectors_ND[list(places)],
        [cell.rows[place]["task"] for place in places],
        [cell.splits[place] for place in places],
        [cell.rows[place]["uid"] for place in places],
        seed=settings.seed,
        settings=settings.fusion,
    )
    pairs = []
    for group in groups:
        members = [places[at] for at in group]
        try:
            item = fused([cell.items[place] for place in members])
        except RecordError:
            continue
        together = joined_variants(
            item,
            [variants[place] for place in members],
            seed=settings.seed,
            settings=settings.variants,
        )
        if together.reason is None:
            pairs.append((_pair(cell, members, item, together, settings), members))
    return pairs


def _pair(
    cell: MixCell, members: Sequence[int], item: Item, variants: Variants, settings: MixSettings
) -> Pair:
    rows = [cell.rows[place] for place in members]
    sources = {row["rating_source"] for row in rows}
    by_uid = {row["uid"]: row["licence"] for row in cell.rows}
    is_made = any(row["origin"] != row["uid"] for row in rows)
    borrowed = [by_uid[variant.uid] for variant in variants.variants if variant.uid in by_uid]
    target = Target(
        item=item,
        origins=tuple(dict.fromkeys(row["origin"] for row in rows)),
        articles=tuple(dict.fromkeys(row["article"] for row in rows)),
        rule=rows[0]["rule"] if len(rows) == 1 else "fused",
        rating=min(row["rating"] for row in rows),
        rating_source=sources.pop() if len(sources) == 1 else CONSTRUCTION,
        licence=union([*(row["licence"] for row in rows), *borrowed]),
    )
    return pair_of(
        target,
        variants,
        seed=settings.seed,
        thought_share=settings.thought_share,
        revisions=[settings.teacher] if is_made else [],
    )


def _note_neighbors(cell: MixCell, pairs: Sequence[tuple[Pair, list[int]]]) -> None:
    """Rows of the pool that serve as variants: the first pair, by key, that each is in."""
    used: dict[str, str] = {}
    for pair, _ in sorted(pairs, key=lambda found: found[0].key):
        for variant in pair.variants:
            if not variant.degradations:
                used.setdefault(variant.uid, pair.key)
    for place, row in enumerate(cell.rows):
        if cell.reasons.get(place) == LOW and row["uid"] in used:
            cell.pairs[place], cell.reasons[place] = used[row["uid"]], NEIGHBOR


def pair_row(cell: MixCell, pair: Pair, members: Sequence[int]) -> dict[str, Any]:
    """A pair as columns of the table ``mixture``."""
    record, target = record_of(pair), pair.target
    return {
        "pair": pair.key,
        "cell": cell.number,
        "split": cell.splits[members[0]],
        "task": record.task,
        "members": [cell.rows[place]["uid"] for place in members],
        "articles": list(target.articles),
        "rule": target.rule,
        "rating": target.rating,
        "rating_source": target.rating_source,
        "licence": target.licence,
        "instruction": record.instruction,
        "input": record.input,
        "output": record.output,
        "cot": record.cot,
        "plan": pair.plan,
        "keeps_facts": pair.keeps_facts,
        "degradations": [list(variant.degradations) for variant in pair.variants],
        "variant_ratings": [variant.rating for variant in pair.variants],
        "tokens": estimated_tokens(record.input) + estimated_tokens(record.output),
        "provenance": json.dumps(provenance_of(pair), ensure_ascii=False, sort_keys=True),
    }
