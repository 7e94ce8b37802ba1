"""Articles out of files: each format, and what is wrong with a file told of it alone."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixup.errors import ConfigError
from mixup.mixture_config import TextConfig
from mixup.stages.articles import Article, read_articles
from mixup.stages.sources import BUNDLED_TEXT, TEXTS, Chunk, find_files

CONFIG = TextConfig()
EXTRACT = (
    '<doc id="1" url="u" title="Ayr &amp; Doon">\nAyr &amp; Doon\n\nThe Ayr is a river.\n</doc>\n'
    "between the blocks\n"
    '<doc id="2" url="u" title="Moss">\nMoss\n\nMoss is green.\nIt has no roots.\n</doc>\n'
)


def articles(path: Path, config: TextConfig = CONFIG) -> list[Article]:
    (file,) = find_files([str(path)], TEXTS)
    return list(read_articles(Chunk(file), config))


def test_rows_have_a_title_a_text_and_where_they_are_from(tmp_path):
    rows = [
        {"title": "A", "text": "one", "source": "s", "license": "MIT"},
        {"title": None, "text": "two", "more": 1},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    first, second = articles(path)
    assert (first.title, first.text, first.source, first.licence) == ("A", "one", "s", "MIT")
    assert (second.title, second.text, second.source, second.licence) == ("", "two", "", "")
    assert (first.offset, second.offset) == (0, path.read_text().index("\n") + 1)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert [found.text for found in articles(tmp_path / "a.parquet")] == ["one", "two"]
    assert [found.offset for found in articles(tmp_path / "a.parquet")] == [0, 1]


def test_other_columns_are_named_in_the_config(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"name": "A", "body": "one"}))
    config = TextConfig(field="body", title="name")
    (found,) = articles(tmp_path / "a.jsonl", config)
    assert (found.title, found.text) == ("A", "one")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"[1]", "not_an_object"),
        (b'{"body": "x"}', "no_text_column"),
        (b'{"text": ["x"]}', "wrong_type"),
        (b'{"text": "x"', "not_json"),
        (b'{"text": "\xff"}', "not_utf8"),
        (b'{"text": "' + b"x" * 2000 + b'"}', "row_too_long"),
    ],
)
def test_a_bad_row_costs_itself_alone(tmp_path, line, reason):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "before"}\n' + line + b'\n{"text": "after"}\n')
    before, bad, after = articles(path, TextConfig(max_article_bytes=1000))
    assert (before.text, bad.reason, after.text) == ("before", reason, "after")
    assert bad.text == ""
    assert bad.raw
    assert line.startswith(bad.raw.rstrip(b"\n"))


@pytest.mark.parametrize("name", ["wiki_00", "wiki.txt", "wiki_07.gz"])
def test_an_extract_of_wikipedia_has_an_article_a_block(tmp_path, name):
    data = EXTRACT.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    first, second = articles(tmp_path / name)
    assert (first.title, first.text) == ("Ayr & Doon", "The Ayr is a river.\n")
    assert (second.title, second.text) == ("Moss", "Moss is green.\nIt has no roots.\n")
    assert EXTRACT.encode()[second.offset :].startswith(b'<doc id="2"')


def test_a_block_that_is_not_closed_is_said(tmp_path):
    cut = EXTRACT[: EXTRACT.index("</doc>")]
    (tmp_path / "wiki_00").write_text(cut + EXTRACT)
    assert [found.reason for found in articles(tmp_path / "wiki_00")] == [
        "unclosed_article",
        None,
        None,
    ]
    (tmp_path / "wiki_01").write_text(EXTRACT[:-10])
    assert [found.reason for found in articles(tmp_path / "wiki_01")] == [None, "unclosed_article"]


def test_an_extract_of_json_lines_needs_no_suffix(tmp_path):
    (tmp_path / "wiki_00").write_text(json.dumps({"id": "1", "title": "A", "text": "one"}) + "\n")
    (found,) = articles(tmp_path / "wiki_00")
    assert (found.title, found.text) == ("A", "one")


def test_a_plain_text_file_is_one_article_named_after_it(tmp_path):
    path = tmp_path / "paper_making.txt"
    path.write_bytes("\ufeffPaper is made\n\nof pulp.".encode())
    (found,) = articles(path)
    assert (found.offset, found.title, found.text) == (
        0,
        "paper making",
        "Paper is made\n\nof pulp.",
    )
    (too_long,) = articles(path, TextConfig(max_article_bytes=8))
    assert too_long.reason == "row_too_long"
    path.write_bytes(b"caf\xe9")
    assert articles(path)[0].reason == "not_utf8"
    path.write_bytes(b"")
    assert articles(path)[0].text == ""


def test_a_damaged_file_is_said_after_what_came_before(tmp_path):
    data = gzip.compress(EXTRACT.encode() * 2000)
    (tmp_path / "wiki_00.gz").write_bytes(data[: len(data) // 2])
    found = articles(tmp_path / "wiki_00.gz")
    assert found[-1].reason == "unreadable_file"
    assert len(found) > 1
    assert all(article.text for article in found[:-2])


def test_a_folder_gives_its_text_files(tmp_path):
    for name in ("a.txt", "wiki_00", "b.jsonl", "notes.md", "wiki_x"):
        (tmp_path / name).write_text("x")
    names = [Path(file.path).name for file in find_files([str(tmp_path)], TEXTS)]
    assert names == ["a.txt", "b.jsonl", "wiki_00"]
    with pytest.raises(ConfigError, match=r"text\.paths: .* is of no known type"):
        find_files([str(tmp_path / "notes.md")], TEXTS)


def test_the_sample_has_every_kind_of_file():
    formats = {file.format for file in find_files([BUNDLED_TEXT], TEXTS)}
    assert formats == {"jsonl", "text"}
    read = [
        article
        for file in find_files([BUNDLED_TEXT], TEXTS)
        for article in read_articles(Chunk(file), CONFIG)
    ]
    assert len(read) == 15
    assert all(article.title and article.text for article in read)
