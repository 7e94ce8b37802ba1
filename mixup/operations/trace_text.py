"""What a trace says to a person."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from mixup.operations.text import LABEL, indented, labeled, short, width
from mixup.report.wording import fate_label, score, visible, words
from mixup.rewards.rubric import COMPONENTS

_SHOWN_RELEASES = 8
_ORIGINS = {
    "own": ", as observed",
    "neighbors": ", as its neighbors suggest",
    "posterior": ", the likeliest by its neighbors",
}
_CURATED = (("quality", "quality"), ("long tail", "long_tail"))


def trace_lines(found: Mapping[str, Any]) -> list[str]:
    """What ``trace`` found, for a person."""
    kind = {"row": "release row", "quarantine": "quarantined"}.get(found["kind"], found["kind"])
    lines = [f"{kind} {visible(found['key'])}"]
    lines += {
        "record": _record,
        "cluster": _cluster,
        "sample": _cluster,
        "row": _release_row,
        "pair": _pair,
        "quarantine": _quarantine,
    }[found["kind"]](found)
    if found["moved_on"]:
        lines += ["", "note: the tables have changed since the release was made; refresh again"]
    return lines


def _record(found: Mapping[str, Any]) -> list[str]:
    about = ", ".join(part for part in (found["task"], found["language"]) if part)
    lines = [labeled("task", visible(f"{about}, about {found['tokens']:,} tokens"))]
    lines += [labeled("fate", _fate(found)), labeled("rating", _rating(found["rating"]))]
    lines += _contamination(found["contamination"])
    lines += [labeled(label, text) for label, text in _curation(found["curation"])]
    if cluster := found["cluster"]:
        lines.append(labeled("cluster", f"{cluster['cluster']}: {_fate_words(cluster['fate'])}"))
    lines += [labeled("mixture", visible(text)) for text in _in_mixture(found["mixture"])]
    lines += _releases(found)
    lines += ["", "occurs in:", *_places(found["occurrences"]), ""]
    for turn in found["turns"]:
        lines += [f"{visible(turn['role'])}:", *indented(turn["content"])]
    return lines


def _quarantine(found: Mapping[str, Any]) -> list[str]:
    place = found["place"]
    lines = [labeled("place", f"{visible(place['path'])}, offset {place['offset']:,}")]
    for row in found["quarantine"]:
        lines.append(labeled("reason", words(row["reason"])))
        lines += [labeled("detail", visible(row["detail"]).replace("\n", " "))]
        lines += ["", "bytes as they stood there:", *indented(short(row["raw"]))]
    return lines


def _contamination(found: Mapping[str, Any] | None) -> list[str]:
    """What a record or sample holds; nothing to say of one that was not compared or is clean."""
    if found is None or found["kind"] is None:
        return []
    question = visible(found["question"]).replace("\n", " ")
    place = f"{found['benchmark']} ({found['kind']}), {found['place']}"
    return [
        labeled("contaminated", visible(place)),
        *(f"{' ' * LABEL}{line}" for line in _wrapped(f"question: {question}")),
        *(f"{' ' * LABEL}{line}" for line in _wrapped(f"shared: {visible(found['matched'])}")),
    ]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(short(text), width() - LABEL)


def _releases(found: Mapping[str, Any]) -> list[str]:
    """The rows of releases that it is, or is part of, the newest first."""
    made = found["releases"]
    if not made:
        return [labeled("releases", "in none of those that are there")]
    rows = [
        f"{row['release']}{' (current)' if row['release'] == found['release'] else ''}: "
        f"{row['kind']} row {row['row']}"
        for row in made[:_SHOWN_RELEASES]
    ]
    more = len(made) - len(rows)
    rows += [f"and {more:,} earlier"] if more else []
    return [labeled("releases" if at == 0 else "", row) for at, row in enumerate(rows)]


def _fate(found: Mapping[str, Any]) -> str:
    text = _fate_words(found["fate"])
    others = len(found["occurrences"]) - 1
    if others > 0 and found["fate"]:
        text += f"; its {others:,} further occurrence(s) count as duplicates"
    return text if found["release"] is None else f"{text} (release {found['release']})"


def _fate_words(fate: Mapping[str, Any] | None) -> str:
    if fate is None:
        return "none yet: the workspace has no release"
    row = f", row {fate['row']}" if fate["row"] else ""
    return fate_label(fate["fate"]) + row


def _rating(rating: Mapping[str, Any] | None) -> str:
    if rating is None:
        return "not rated yet"
    if rating["rating"] is None:
        return words(rating["reason"])
    return f"{rating['rating']} (overall {rating['overall']:.2g}, from the {rating['source']})"


def _curation(curation: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if curation is None:
        return [("curation", "none: not in the pool of the last run, or not curated yet")]
    reason = f" ({words(curation['reason'])})" if curation["reason"] else ""
    rows = [("tier", f"{words(curation['tier'])}{reason}")]
    rows += [(label, score(curation[name])) for label, name in _CURATED]
    if curation["curated_rating"] is not None:
        origin = _ORIGINS.get(curation["rating_origin"], "")
        rows.append(("curated rating", f"{curation['curated_rating']}{origin}"))
    if curation["suspicious"] is not None:
        rows.append(("own rating", _tested(curation)))
    if curation["duplicate_of"]:
        rows.append(("duplicate of", curation["duplicate_of"]))
    return rows


def _tested(curation: Mapping[str, Any]) -> str:
    found = "suspicious" if curation["suspicious"] else "not suspicious"
    return f"{found} (in {score(curation['misrated'])} of the tests)"


def _cluster(found: Mapping[str, Any]) -> list[str]:
    lines = [labeled("cluster", found["cluster"])] if found["kind"] == "sample" else []
    about = f"{found['task']}, cohesion {score(found['cohesion'])}, {found['tokens']:,} tokens"
    lines += [
        labeled("task", visible(about)),
        labeled("licence", visible(found["licence"])),
        labeled("fate", _fate_words(found["fate"])),
        *_releases(found),
        "",
        f"{len(found['members'])} members:",
    ]
    for member in found["members"]:
        lines += [_member(member), *_places(member["occurrences"], indent=4)]
        lines += indented(short(member["text"]), indent=4)
    if not found["samples"]:
        return [*lines, "", "no samples: this cluster was not distilled"]
    return [*lines, "", "samples:", *(line for row in found["samples"] for line in _sample(row))]


def _sample(row: Mapping[str, Any]) -> list[str]:
    verdict = "not judged: there is no release with rules yet"
    if row["accepted"] is not None:
        verdict = "accepted" if row["accepted"] else f"rejected: {words(row['reason'])}"
    rewards = [f"{name} {score(row['rewards'].get(name))}" for name in COMPONENTS]
    text = short(row["text"] or "") or f"no text: {words(row['reason'])}"
    return [
        f"  {row['sample']}  number {row['index']}, "
        f"{'' if row['constrained'] else 'un'}constrained, finish {words(row['finish'])}",
        f"    {verdict}{'; in the release' if row['released'] else ''}",
        f"    {', '.join(rewards)}, combined {score(row['combined'])}",
        *(f"    {line}" for line in _contamination(row["contamination"])),
        *indented(text, indent=4),
    ]


def _release_row(found: Mapping[str, Any]) -> list[str]:
    row = found["row"] or {}
    lines = [
        labeled("kind", f"{found['row_kind']}; the tables no longer hold what it was made from"),
        labeled("told by", f"lineage of release {found['witness']}"),
        *([labeled("sample", found["sample"])] if found["sample"] else []),
        *([labeled("licence", visible(row["licence"]))] if row else []),
        *([labeled("quality", score(row["quality"]))] if row else []),
        *_releases(found),
        "",
        f"{len(found['members'])} members:",
    ]
    for member in found["members"]:
        lines += [_member(member), *_places(member["occurrences"], indent=4)]
    if found["samples"]:
        lines += ["", "sample:", *(line for sample in found["samples"] for line in _sample(sample))]
    for turn in row.get("messages") or ():
        lines += ["", f"{visible(turn['role'])}:", *indented(turn["content"])]
    return lines


def _in_mixture(found: Mapping[str, Any] | None) -> list[str]:
    """What became of a record in a mixture; nothing to say where there is none."""
    if found is None:
        return []
    if found["pair"] is None:
        of = f" of {found['duplicate_of']}" if found["duplicate_of"] else ""
        return [f"left out: {words(found['reason'])}{of}"]
    role = "a variant in" if found["reason"] else "the target, or a part of it, of"
    return [f"{role} pair {found['pair']}, split {found['split']}", *_leak(found["left_out"])]


def _leak(leak: Mapping[str, Any] | None) -> list[str]:
    if leak is None:
        return []
    what = "its target" if leak["kind"] == "target" else "one of its articles"
    whose = "that of pair" if leak["kind"] == "target" else "article"
    return [
        f"left out of the files: {what} nearly repeats {whose} {leak['near']} in the split "
        f"{leak['near_split']} ({leak['similarity']:.0%} of the words in sequence)"
    ]


def _pair(found: Mapping[str, Any]) -> list[str]:
    """A pair of a mixture: where it is, its target, its variants and what is behind it."""
    rating = f"{found['rating']} (from the {found['rating_source']})"
    lines = [
        labeled("task", f"{found['task']}, about {found['tokens']:,} tokens"),
        labeled("split", found["split"]),
        *(labeled("", text) for text in _leak(found["left_out"])),
        labeled("made by", visible(f"{found['rule']}, variants by plan {found['plan']}")),
        labeled("rating", rating),
        labeled("facts", "all in the variants" if found["keeps_facts"] else "some are lost"),
        labeled("licence", visible(found["licence"])),
    ]
    for segment in found["articles"]:
        title = visible(segment["title"]) or "without a title"
        lines.append(labeled("article", f"{title}, block {segment['number']} of it"))
        lines.append(_placed(segment["place"], LABEL))
    lines += ["", f"target, of {len(found['members'])} row(s):"]
    for member in found["members"]:
        lines += [f"  {member['uid']}", *_places(member["occurrences"], indent=4)]
    lines += indented(found["output"], indent=4)
    lines += ["", f"{len(found['variants'])} variants:"]
    for variant in found["variants"]:
        how = ", ".join(variant["degradations"]) or "a low-rated row as it is"
        lines.append(visible(f"  {variant['uid']}  class {variant['rating']}: {how}"))
    return [*lines, "", "input:", *indented(found["input"])]


def _placed(place: Mapping[str, Any], indent: int) -> str:
    return f"{' ' * indent}{_place(place)}"


def _member(member: Mapping[str, Any]) -> str:
    return f"  {member['uid']}  rating: {_rating(member['rating'])}"


def _places(occurrences: Iterable[Mapping[str, Any]], indent: int = 2) -> list[str]:
    return [f"{' ' * indent}{_place(found)}" for found in occurrences] or [f"{' ' * indent}nowhere"]


def _place(found: Mapping[str, Any]) -> str:
    kind = next((name for name in ("line", "row") if name in found), "offset")
    path = found["path"] or "a file that was not read to the end"
    text = f"{path}, {kind} {found[kind]:,} (source {found['source']}, licence {found['licence']})"
    return visible(text).replace("\n", " ")
