"""The summary of a run and the list of config keys."""

from mixup.config_file import describe
from mixup.operations.text import config_lines, refresh_lines, width
from mixup.refresh_config import RefreshConfig

MANIFEST = {
    "counts": {
        "rows": 1_150,
        "distilled": 150,
        "originals": 1_000,
        "wanted_distilled": 1_000,
        "wanted_originals": 1_000,
    },
    "fates": {
        "left_out:singleton": 300,
        "merged": 450,
        "original": 1_000,
        "left_out:chat": 50,
        "duplicate": 0,
        "quarantined": 200,
    },
    "stages": [{"stage": "distill", "seconds": 40.67}, {"stage": "select", "seconds": 75.0}],
    "skipped": ["ingest"],
}


def summary(**counts: int) -> list[str]:
    manifest = {**MANIFEST, "counts": {**MANIFEST["counts"], **counts}}
    return refresh_lines("/w/releases/r", manifest, is_new=True, seconds=130.2)


def test_the_summary_says_what_came_out():
    lines = summary()
    assert lines[0].split() == ["release", "/w/releases/r"]
    assert "1,150: 150 distilled, 1,000 originals" in lines[1]
    assert lines[2].endswith("too few passed, 850 distilled short")
    assert lines[-1].split() == ["report", "/w/releases/r/report.html"]
    assert not any("short" in line for line in summary(distilled=1_000, rows=2_000))


def test_fates_are_aligned_and_sum_to_the_occurrences():
    lines = summary()
    at = lines.index("2,000 occurrences came in; each has one fate:")
    rows = lines[at + 1 : lines.index("time:") - 1]
    assert [row.split("  ")[1] for row in rows] == [
        "Kept as an original",
        "Merged into a distilled row",
        "Duplicate of another row",
        "Quarantined",
        "Left out: singleton",
        "Left out: chat",
    ]
    assert len({len(row) for row in rows}) == 1
    assert rows[0].endswith("1,000  50.0 %")


def test_seconds_by_stage_and_in_all():
    rows = summary()[summary().index("time:") + 1 : -2]
    assert [" ".join(row.split()) for row in rows] == [
        "ingest nothing to do",
        "distill 40.7 s",
        "select 1 min 15 s",
        "in all 2 min 10 s",
    ]


def test_nothing_to_do_is_said_first():
    lines = refresh_lines("/w/releases/r", MANIFEST, is_new=False, seconds=0.42)
    assert lines[0] == "nothing to do: /w is up to date (looked for 0.4 s)"
    assert lines[1].split() == ["release", "/w/releases/r"]


def test_every_config_key_is_listed_within_the_width():
    lines = config_lines(describe(RefreshConfig))
    keys = {line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "}
    known = {key for key, default, _ in describe(RefreshConfig) if default or "." in key}
    assert keys == known
    assert max(len(line) for line in lines) <= width()
