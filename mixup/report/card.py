"""The dataset card: the README.md of a release, with the front matter that the hub reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import yaml

from mixup.errors import ConfigError
from mixup.report.digest import Digest
from mixup.report.wording import fate_label, shortfall, visible, words

# The hub's license identifiers that instruction data commonly carries; anything else is "other".
_HUB_LICENSES = frozenset(
    [
        *("apache-2.0", "mit", "isc", "bsd-2-clause", "bsd-3-clause", "mpl-2.0", "unlicense"),
        *("cc0-1.0", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0"),
        *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
        *("cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "odc-by", "odbl", "pddl"),
        *("gpl-3.0", "lgpl-3.0", "agpl-3.0", "gfdl", "cdla-permissive-2.0", "cdla-sharing-1.0"),
        *("llama2", "llama3", "llama3.1", "gemma", "unknown", "other"),
    ]
)
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
    (1_000_000_000, "100M<n<1B"),
)

# What a reader of the card must know of every such release, whatever its counts.
_LIMITS = (
    "Distilled rows are written by a language model. They can state what no input says, and what "
    "is wrong in the inputs can stay wrong.",
    "Quality is an estimate from ratings of neighboring rows. It judges topic and wording more "
    "than correctness; no person has checked the rows.",
    "A distilled row carries the licenses of all rows it was made from, joined by AND.",
    "Takedowns: `lineage.parquet` leads from a row to the rows it was made from and back.",
)


def dataset_card(digest: Digest, columns: Mapping[str, str]) -> str:
    """The README.md of a release, in the form that the Hugging Face hub reads.

    Args:
        digest: what the release is and how it was made.
        columns: name of each column of ``data/*.parquet`` to what it holds.

    Raises:
        ConfigError: if no column is described.
    """
    if not columns:
        raise ConfigError("a dataset card needs the description of at least one column")
    matter = yaml.safe_dump(front_matter(digest), sort_keys=False, allow_unicode=True, width=10_000)
    parts = (
        f"---\n{matter}---",
        f"# {_inline(digest.release_name)}",
        _summary(digest),
        "## Columns\n\n" + _table(("column", "what it holds"), columns.items()),
        _making(digest),
        _numbers(digest),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in _LIMITS),
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def front_matter(digest: Digest) -> dict[str, object]:
    """The card's metadata: license identifiers, size category, data files, tags."""
    matter: dict[str, object] = {
        "pretty_name": _one_line(digest.release_name),
        "license": license_ids(digest.release_licences),
    }
    if matter["license"] == ["other"]:
        matter["license_name"] = "see-dataset-card"
    return matter | {
        "size_categories": [size_category(digest.counts.rows)],
        "task_categories": ["text-generation"],
        "tags": ["instruction-tuning", "instruction-distillation", "synthetic"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": "data/*.parquet"}],
            }
        ],
    }


def license_ids(licences: Iterable[str]) -> list[str]:
    """The hub's identifiers of licences, unions taken apart, sorted; "other" for those it lacks.

    No licence at all is "unknown".
    """
    parts = {part.strip().lower() for text in licences for part in text.split(" AND ")} - {""}
    return sorted({part if part in _HUB_LICENSES else "other" for part in parts}) or ["unknown"]


def size_category(rows: int) -> str:
    """The hub's size category of a number of rows."""
    return next((name for limit, name in _SIZES if rows < limit), "1B<n<10B")


def _summary(digest: Digest) -> str:
    counts = digest.counts
    text = (
        f"{counts.rows:,} instruction pairs for supervised fine-tuning: {counts.distilled:,} "
        f"distilled from groups of related low-quality rows, and {counts.originals:,} kept as they "
        f"came. They stand for a pool of {counts.occurrences:,} rows ({counts.records:,} distinct)."
    )
    short = shortfall(counts)
    notes = ([f"Shortfall: {short}"] if short else []) + [_inline(note) for note in digest.notes]
    return "\n\n".join([text, *(f"> {note}" for note in notes)])


def _making(digest: Digest) -> str:
    text = (
        "## How it was made\n\n"
        "Made by mixup after LM-Mixup (arXiv 2510.20449). Rows were read, exact and near "
        "duplicates removed, and each row's quality estimated from the ratings of its neighbors. "
        "Low-quality rows that belong together were grouped; a language model distilled each group "
        "into one pair; samples were scored for quality, alignment with their inputs, format and "
        "coverage, and only accepted ones compete for a place. The release takes the best "
        "distilled pairs and the best original rows."
    )
    rows = ((words(model.role), model.name, model.revision) for model in digest.models)
    table = _table(("model", "name", "revision"), rows)
    made = (
        f"Made {_inline(digest.created_at)} by run {_code(digest.run)} with config "
        f"{_code(digest.config_fingerprint)}; the whole config is in `manifest.json`, the figures "
        "are in `report.html`."
    )
    return "\n\n".join([text, *([table] if digest.models else []), made])


def _numbers(digest: Digest) -> str:
    fates = ((fate_label(name), f"{count:,}") for name, count in digest.fates.items())
    sources = ((row.source, row.licence, f"{row.rows:,}") for row in digest.sources)
    licences = ((name, f"{count:,}") for name, count in digest.release_licences.items())
    parts = ["## Numbers", _table(("fate of the rows that were read", "rows"), fates)]
    if digest.release_licences:
        parts.append(_table(("license of a row of the release", "rows"), licences))
    if digest.sources:
        parts.append(_table(("source", "license", "rows read"), sources))
    return "\n\n".join(parts)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str | None, ...]]) -> str:
    lines = [head, tuple("---" for _ in head)]
    written = [
        *(f"| {' | '.join(line)} |" for line in lines),
        *(f"| {' | '.join(_inline(cell or 'not stated') for cell in row)} |" for row in rows),
    ]
    return "\n".join(written)


def _inline(text: str) -> str:
    """Text as one line of Markdown whose own markup is shown, not obeyed."""
    return re.sub(r"([\\`*_\[\]<>|#!~$])", r"\\\1", _one_line(text))


def _code(text: str) -> str:
    return f"`{_one_line(text).replace('`', chr(39))}`"


def _one_line(text: str) -> str:
    return " ".join(visible(text).split())
