"""The dataset card."""

import dataclasses

import pytest
import yaml
from sample_digest import HOSTILE, empty_digest, full_digest

from mixup.errors import ConfigError
from mixup.report.card import dataset_card, front_matter, license_ids, size_category

COLUMNS = {"messages": "the pair, as role and content", "kind": "`distilled` | `original`"}


def matter_of(card: str) -> dict:
    opening, matter, _ = card.split("---\n", 2)
    assert opening == ""
    return yaml.safe_load(matter)


def test_front_matter_is_what_the_hub_reads():
    matter = matter_of(dataset_card(full_digest(), COLUMNS))
    assert matter == front_matter(full_digest())
    assert matter["license"] == ["apache-2.0", "cc-by-nc-4.0", "cc-by-sa-3.0"]
    assert matter["size_categories"] == ["1K<n<10K"]
    assert matter["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}
    ]


@pytest.mark.parametrize(
    ("rows", "category"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1_000, "1K<n<10K"),
        (10_000, "10K<n<100K"),
        (250_000, "100K<n<1M"),
        (2_000_000_000, "1B<n<10B"),
    ],
)
def test_size_category(rows, category):
    assert size_category(rows) == category


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        ([], ["unknown"]),
        (["Apache-2.0", "apache-2.0 AND MIT"], ["apache-2.0", "mit"]),
        (["unknown AND mit", "my own terms"], ["mit", "other", "unknown"]),
        (["", " AND "], ["unknown"]),
    ],
)
def test_license_ids(licences, expected):
    assert license_ids(licences) == expected


def test_only_an_unlisted_license_is_named():
    digest = dataclasses.replace(full_digest(), release_licences={"my own terms": 3})
    assert matter_of(dataset_card(digest, COLUMNS))["license_name"] == "see-dataset-card"


def test_the_card_states_counts_columns_and_the_shortfall():
    card = dataset_card(full_digest(), COLUMNS)
    for statement in (
        "1,612 instruction pairs",
        "> Shortfall: 2,000 rows were asked for",
        "| messages | the pair, as role and content |",
        "| Left out: quality below threshold | 9,020 |",
        "| cc-by-nc-4.0 AND cc-by-sa-3.0 | 612 |",
        "## Limits",
    ):
        assert statement in card


def test_text_of_the_data_is_neither_markup_nor_metadata():
    evil = "x\n---\nlicense: mit\n---\n# <b>|`{{}}`\u202e"
    digest = dataclasses.replace(full_digest(), release_name=evil, run=evil, notes=(evil,))
    card = dataset_card(digest, COLUMNS)
    assert matter_of(card)["license"] == ["apache-2.0", "cc-by-nc-4.0", "cc-by-sa-3.0"]
    assert card.count("\n---\n") == 1
    assert "\n# <b>" not in card
    assert "\u202e" not in card
    for text in HOSTILE:
        assert text not in card
    widths = {line.count(" | ") for line in card.splitlines() if line.startswith("| Qwen")}
    assert widths <= {2}
    card.encode("utf-8")


def test_an_empty_release_has_a_card_and_no_columns_is_refused():
    assert matter_of(dataset_card(empty_digest(), COLUMNS))["license"] == ["unknown"]
    with pytest.raises(ConfigError):
        dataset_card(empty_digest(), {})
