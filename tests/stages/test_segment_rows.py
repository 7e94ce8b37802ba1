"""From text to records without a model: segments, items, and what is not done twice."""

import json
import subprocess
import sys
from collections import Counter

import pytest
from made_mixture import TASKS, cut, item_files, rows_of, text_files, write_articles
from made_pool import make_workspace

from mixup.cover import is_retryable
from mixup.mixture.segments import segment_key
from mixup.mixture_config import TextConfig
from mixup.records import Turn, bucket_of, uid_of
from mixup.tables import read_files, snapshot


@pytest.fixture
def workspace(tmp_path):
    return make_workspace(tmp_path / "w", buckets=4)


def test_every_article_gives_segments_that_name_it(workspace, tmp_path):
    write_articles(tmp_path / "a.jsonl", 12)
    files = text_files(tmp_path / "a.jsonl")
    counts = cut(workspace, files, config=TextConfig(max_tokens=120))["segment"]
    assert (counts.rows_in, counts.parts["segmented"]) == (12, 12)
    rows = rows_of(workspace, "segments")
    assert len(rows) == counts.extra["segments"] > 12
    assert len({row["article"] for row in rows}) == 12
    for row in rows:
        assert row["segment"] == segment_key(row["text"])
        assert row["tokens"] <= 120
        assert row["title"].split()[0] in row["text"] or row["number"] > 0
        assert (row["licence"], row["source"]) == ("CC0-1.0", "made")
    numbers = Counter(row["article"] for row in rows)
    assert {row["number"] for row in rows} == set(range(max(numbers.values())))


def test_equal_text_is_one_segment_and_the_first_place_keeps_it(workspace, tmp_path):
    write_articles(tmp_path / "a.jsonl", 3)
    write_articles(tmp_path / "b.jsonl", 4)
    files = text_files(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    counts = cut(workspace, files)["segment"]
    rows = rows_of(workspace, "segments")
    assert len({row["segment"] for row in rows}) == len(rows) == counts.extra["segments"]
    assert counts.extra["duplicate"] * 4 == 3 * len(rows)
    of_a = [row for row in rows if row["file"] == files[0].fingerprint]
    assert len(of_a) == counts.extra["duplicate"]


def test_articles_without_use_say_why(workspace, tmp_path):
    write_articles(tmp_path / "a.jsonl", 2)
    bad = [{"title": "x", "text": ""}, {"title": "x", "text": "{| a\n|}"}, {"x": 1}, 5]
    with (tmp_path / "a.jsonl").open("a") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in bad)
    counts = cut(workspace, text_files(tmp_path / "a.jsonl"))["segment"]
    assert counts.parts == {"segmented": 2, "quarantined": 4}
    reasons = Counter(row["reason"] for row in rows_of(workspace, "quarantine"))
    assert reasons == {
        "empty_article": 1,
        "only_markup": 1,
        "no_text_column": 1,
        "not_an_object": 1,
    }
    (file,) = [row for row in rows_of(workspace, "files") if row["quarantined"]]
    assert (file["rows"], file["quarantined"]) == (6, 4)


def test_every_segment_has_one_outcome_a_task_and_items_become_records(workspace, tmp_path):
    write_articles(tmp_path / "a.jsonl", 8)
    files = text_files(tmp_path / "a.jsonl")
    counts = cut(workspace, files)
    segments = {row["segment"]: row for row in rows_of(workspace, "segments")}
    candidates = rows_of(workspace, "candidates")
    assert Counter(row["segment"] for row in candidates) == dict.fromkeys(segments, len(TASKS))
    assert counts["teach"].rows_in == len(candidates)
    made = [row for row in candidates if row["uid"]]
    assert all((row["uid"] is None) == (row["reason"] is not None) for row in candidates)
    paths = snapshot(workspace, "candidates").paths
    assert not any(is_retryable(read_files(workspace, "candidates", paths)).to_pylist())
    assert {row["task"] for row in made} == set(TASKS)

    records = {row["uid"]: row for row in rows_of(workspace, "records")}
    assert set(records) == {row["uid"] for row in made}
    for row in made:
        record = records[row["uid"]]
        assert record["task"] == row["task"]
        assert uid_of([Turn(**turn) for turn in record["turns"]]) == row["uid"]
    occurrences = rows_of(workspace, "occurrences")
    assert {row["file"] for row in occurrences} == set(item_files(files))
    assert len({(row["file"], row["offset"]) for row in occurrences}) == len(occurrences)
    for row in occurrences:
        extra = json.loads(row["extra"])
        assert segments[extra["segment"]]["article"] == extra["article"]
    collected = counts["collect"]
    assert collected.rows_in == len(made) == len(occurrences)
    assert collected.parts["new"] == len(records)


def test_once_more_adds_nothing_and_a_new_file_only_its_own(workspace, tmp_path):
    write_articles(tmp_path / "a.jsonl", 5)
    first = text_files(tmp_path / "a.jsonl")
    cut(workspace, first, run="one")
    names = ("segments", "candidates", "records", "occurrences", "quarantine")
    before = {name: sorted(map(str, rows_of(workspace, name))) for name in names}
    again = cut(workspace, first, run="two")
    assert again["segment"].extra["segments"] == again["teach"].rows_in == 0
    assert {name: sorted(map(str, rows_of(workspace, name))) for name in names} == before

    write_articles(tmp_path / "b.jsonl", 4, start=5)
    both = text_files(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    counts = cut(workspace, both, run="three")
    fresh = len(rows_of(workspace, "segments")) - len(before["segments"])
    assert counts["teach"].rows_in == fresh * len(TASKS)


def test_rows_lie_in_the_bucket_of_their_key(workspace, tmp_path):
    write_articles(tmp_path / "a.jsonl", 8)
    cut(workspace, text_files(tmp_path / "a.jsonl"))
    for name, key in (("segments", "segment"), ("candidates", "segment"), ("records", "uid")):
        for bucket, paths in snapshot(workspace, name).files.items():
            keys = read_files(workspace, name, paths, [key])[key].to_pylist()
            assert {bucket_of(found, 4) for found in keys} == {bucket}


def test_a_segment_that_nearly_repeats_an_older_one_gives_no_item(workspace, tmp_path):
    write_articles(tmp_path / "a.jsonl", 6)
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    copies = [{**row, "title": "Copy", "text": row["text"] + " It is so."} for row in rows[:2]]
    with (tmp_path / "a.jsonl").open("a") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in copies)
    counts = cut(workspace, text_files(tmp_path / "a.jsonl"), config=TextConfig(max_tokens=400))
    assert counts["near"].parts == {"kept": 6, "near_duplicate": 2}
    segments = {row["segment"]: row for row in rows_of(workspace, "segments")}
    for row in segments.values():
        assert (row["duplicate_of"] is not None) == (row["title"] == "Copy")
        if row["duplicate_of"]:
            assert segments[row["duplicate_of"]]["text"] in row["text"]
    taught = {row["segment"] for row in rows_of(workspace, "candidates")}
    assert taught == {key for key, row in segments.items() if row["title"] != "Copy"}


MEASURED = """
import resource, sys, time
from mixup.mixture_config import TextConfig
from mixup.stages.articles import Article
from mixup.stages.cut_article import cut_article
from mixup.stages.sources import SourceFile

def text(size):
    lines, held, n = [], 0, 0
    while held < size:
        n += 1
        line = (f"In the year {1000 + n % 1000} the town of Ayr {n} had {n * 7} people. "
                f"Its bridge number {n} was built by Thomas Reid, and has {n % 50} arches.")
        lines.append(line)
        held += len(line) + 1
    return "\\n".join(lines)

article = Article(0, "Ayr", text(int(sys.argv[1])))
file = SourceFile("a.txt", "text", "", 1, "t")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.process_time()
rows = cut_article(article, file, TextConfig())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(len(rows), time.process_time() - start, peak * 1024 / len(article.text))
"""


def measured(size: int) -> tuple[int, float, float]:
    """Segments, seconds, and bytes of memory for each byte of an article of some size."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(size)], capture_output=True, text=True, check=True
    )
    rows, seconds, memory = done.stdout.split()
    return int(rows), float(seconds), float(memory)


def test_an_article_of_20_megabytes_costs_no_more_for_each_byte_than_one_of_2():
    small, large = measured(2_000_000), measured(20_000_000)
    assert large[0] / small[0] == pytest.approx(10, rel=0.05)
    assert large[1] < 20 * small[1]  # linear, with room for a busy machine
    assert large[2] < 25
