"""Evaluation files → questions; records and samples that hold one are left out, and accounted for.

The pool's rows say "question NAME" and "answer NAME"; samples of them "What is the question of …".
"""

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_pool import (
    JUDGE,
    RATER,
    Row,
    Sample,
    add,
    add_samples,
    commit,
    curate,
    make_workspace,
    rows_of,
    settings,
    snapshots,
)

from mixup.config import DecontaminateConfig
from mixup.errors import ConfigError, TableError
from mixup.ledger import check_fates
from mixup.stages.curate import TIERS
from mixup.stages.decontaminate import (
    build_index,
    check_bucket,
    ensure_questions,
    evaluation_files,
    load_questions,
    questions_revision,
    read_questions,
)
from mixup.stages.rate import rater_revision
from mixup.stages.select import _fates
from mixup.stages.survey import Survey, SurveySettings, survey_bucket
from mixup.stages.verdicts import Judge

HIGH = [Row(f"high number {n}", topic=2, variant=n, overall=9) for n in range(4)]
LOW = [Row(f"low number {n}", topic=0, variant=n, overall=2) for n in range(3)]
ODD = [Row("h once more again", topic=4, variant=8, overall=9, file="file-2")]
POOL = [*HIGH, *LOW, *ODD, Row("high number 0", topic=2, variant=0, overall=9, file="file-2")]
FILES = ("file-1", "file-2")


def evaluation(folder: Path, *questions: str, name: str = "exam") -> DecontaminateConfig:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"question": text}) + "\n" for text in questions))
    return DecontaminateConfig(paths=[str(path)])


def decontaminated(workspace, config: DecontaminateConfig) -> str:
    """The revision, after every bucket has been looked at; the counts are checked."""
    files = evaluation_files(config)
    revision = questions_revision(config, files)
    assert revision is not None
    ensure_questions(workspace, config, files)
    for bucket in snapshots(workspace)["records"].buckets:
        manifest = check_bucket(workspace, snapshots(workspace), bucket, revision)
        parts = sum(count for name, count in manifest.counts.items() if name != "rows")
        assert parts == manifest.counts.get("rows", 0)
        commit(workspace, manifest)
    return revision


@pytest.fixture
def workspace(tmp_path):
    made = make_workspace(tmp_path / "w", buckets=2)
    add(made, POOL)
    return made


def outcomes(workspace, revision: str) -> dict[str, dict]:
    rows = [row for row in rows_of(workspace, "contamination") if row["questions"] == revision]
    assert len({row["uid"] for row in rows}) == len(rows)
    return {row["uid"]: row for row in rows}


def test_every_record_has_one_outcome_with_place_and_words(workspace, tmp_path):
    config = evaluation(tmp_path, "Is it?", "Question high number 0?", "answer: LOW number 1!")
    found = outcomes(workspace, decontaminated(workspace, config))
    assert set(found) == {row.uid for row in POOL}
    hits = {uid: row for uid, row in found.items() if row["kind"]}
    assert set(hits) == {HIGH[0].uid, LOW[1].uid}
    hit = hits[HIGH[0].uid]
    assert (hit["kind"], hit["benchmark"], hit["question"]) == (
        "exact",
        "exam",
        "Question high number 0?",
    )
    assert hit["place"] == f"{config.paths[0]}:{len(json.dumps({'question': 'Is it?'})) + 1}"
    assert hit["matched"] == "question high number 0"
    clean = found[HIGH[1].uid]
    assert {clean[name] for name in ("kind", "benchmark", "question", "place", "matched")} == {None}


def test_only_new_records_are_compared_and_other_questions_compare_all(workspace, tmp_path):
    config = evaluation(tmp_path, "question high number 0")
    revision = decontaminated(workspace, config)
    add(workspace, [Row("one that is new", topic=5, variant=1)])
    counts = 0
    for bucket in snapshots(workspace)["records"].buckets:
        manifest = check_bucket(workspace, snapshots(workspace), bucket, revision)
        counts += manifest.counts.get("rows", 0)
    assert counts == 1
    other = decontaminated(workspace, evaluation(tmp_path, "question low number 1", name="other"))
    assert other != revision
    assert [uid for uid, row in outcomes(workspace, other).items() if row["kind"]] == [LOW[1].uid]


def curated(workspace, revision: str | None) -> Counter[str]:
    made = settings(questions=revision)
    counts = curate(workspace, FILES, made)
    assert sum(counts[tier] for tier in TIERS) == counts["rows"]
    return counts


def test_contaminated_rows_are_neither_kept_nor_clustered(workspace, tmp_path):
    config = evaluation(tmp_path, "question high number 0", "question low number 1")
    revision = decontaminated(workspace, config)
    curated(workspace, None)
    (whole,) = rows_of(workspace, "clusters")
    assert LOW[1].uid in whole["members"]
    counts = curated(workspace, revision)
    assert (counts["contaminated"], counts["dissolved"]) == (2, 1)
    rows = {row["uid"]: row for row in rows_of(workspace, "curation")}
    for row in (HIGH[0], LOW[1]):
        assert (rows[row.uid]["tier"], rows[row.uid]["reason"]) == ("contaminated",) * 2
        assert rows[row.uid]["cluster"] is None
    (cluster,) = rows_of(workspace, "clusters")
    assert set(cluster["members"]) == {LOW[0].uid, LOW[2].uid}
    assert curated(workspace, None).get("contaminated", 0) == 0  # and they come back


def survey_of(workspace, revision: str | None) -> Survey:
    judge = Judge(JUDGE.rubric, JUDGE.rules, JUDGE.revisions, revision)
    found = SurveySettings(judge, rater_revision(RATER), None, limit=10)
    merged = Survey(10)
    for bucket in range(2):
        merged.merge(survey_bucket(workspace, snapshots(workspace), bucket, FILES, found))
    return merged


def test_rows_and_samples_left_out_are_counted_and_named(workspace, tmp_path):
    config = evaluation(
        tmp_path, "question high number 0", "What is the question of the merged one, please?"
    )
    revision = decontaminated(workspace, config)
    curated(workspace, revision)
    (cluster,) = rows_of(workspace, "clusters")
    text = (
        "<think>\nThe items say the same.\n</think>\n\n<answer>\n"
        "Q: What is the question of the merged one, please?\n"
        "A: All that the answers of low number say.\n</answer>"
    )
    samples = [Sample(cluster["cluster"], 0, text=text), Sample(cluster["cluster"], 1)]
    add_samples(workspace, samples)
    survey = survey_of(workspace, revision)
    assert survey.rejects["contaminated"] == 1
    assert survey.contaminated == {"exam": 1}
    hits = {hit.key: hit for hit in survey.hits}
    assert set(hits) == {HIGH[0].uid, samples[0].key}
    assert hits[HIGH[0].uid].source == "source-file-1, source-file-2"
    assert (hits[samples[0].key].source, hits[samples[0].key].benchmark) == ("distilled", "exam")
    assert survey.counts["left_out:contaminated"] == 1
    originals = survey.originals.keys if survey.originals else []
    assert HIGH[0].uid not in originals
    check_fates(_fates(survey, originals, [], 0), survey.counts["occurrences"])
    off = survey_of(workspace, None)
    assert (off.rejects["contaminated"], off.hits) == (0, [])


def test_the_draw_of_hits_depends_on_their_keys_only(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr("mixup.stages.survey.MOST_HITS", 2)
    config = evaluation(tmp_path, *(f"question high number {n}" for n in range(4)))
    revision = decontaminated(workspace, config)
    curated(workspace, revision)
    first, second = (survey_of(workspace, revision) for _ in range(2))
    assert first.contaminated == {"exam": 4}
    assert len(first.hits) == 2
    assert first.hits == second.hits


def test_the_revision_is_that_of_files_and_rules(tmp_path):
    config = evaluation(tmp_path, "question one of two")
    files = evaluation_files(config)
    revision = questions_revision(config, files)
    assert questions_revision(config, evaluation_files(config)) == revision
    assert questions_revision(config.model_copy(update={"ngram": 8}), files) != revision
    Path(config.paths[0]).write_text('{"question": "another one instead of that"}\n')
    assert questions_revision(config, evaluation_files(config)) != revision
    assert evaluation_files(DecontaminateConfig()) == []
    assert questions_revision(DecontaminateConfig(), []) is None


def test_a_missing_index_is_said(workspace):
    with pytest.raises(TableError, match="run the job again"):
        load_questions(workspace, "0" * 32)


@pytest.mark.parametrize(
    ("content", "columns", "said"),
    [
        ('{"text_of_it": "Why?", "answer": "b"}\n', None, "it has text_of_it, answer"),
        ('{"question": "Why?"}\n', ["stem"], "it has question"),
        ("", None, "it has no rows"),
        ('{"question": null}\n{"question": ""}\n', None, "it has question"),
        ('{"question": "Why is that so?"}\nnot json\n', None, "offset 32"),
        ("[1, 2]\n", None, "not_an_object"),
    ],
)
def test_a_file_without_questions_is_refused_with_its_columns(tmp_path, content, columns, said):
    path = tmp_path / "exam.jsonl"
    path.write_text(content)
    config = DecontaminateConfig(paths=[str(path)], columns=columns)
    with pytest.raises(ConfigError, match=said) as refused:
        build_index(config, evaluation_files(config))
    assert str(path) in str(refused.value)


def test_a_path_of_nothing_names_the_key(tmp_path):
    with pytest.raises(ConfigError, match=r"decontaminate\.paths: .* does not exist"):
        evaluation_files(DecontaminateConfig(paths=[str(tmp_path / "none.jsonl")]))


def test_training_rows_of_a_file_with_several_splits_are_no_questions(tmp_path):
    def questions(*splits: str) -> list[str]:
        table = pa.table({"split": list(splits), "question": [f"in {s}" for s in splits]})
        pq.write_table(table, tmp_path / "exam.parquet")
        config = DecontaminateConfig(paths=[str(tmp_path / "exam.parquet")])
        (file,) = evaluation_files(config)
        return [question.text for question in read_questions(file, config)]

    assert questions("train", "test", "dev") == ["in test", "in dev"]
    assert questions("train", "train") == ["in train", "in train"]


def test_json_arrays_and_parquet_are_read_as_jsonl_is(tmp_path):
    (tmp_path / "one.json").write_text('[{"prompt": "What is the first of all?"}]')
    pq.write_table(pa.table({"Question": ["What is the last?"]}), tmp_path / "two.parquet")
    config = DecontaminateConfig(paths=[str(tmp_path / "*.*")])
    index = build_index(config, evaluation_files(config))
    assert index.counts() == {"one": 1, "two": 1}


def test_a_row_votes_whether_it_is_contaminated_or_not(workspace, tmp_path):
    curated(workspace, None)
    before = {row["uid"]: row["quality"] for row in rows_of(workspace, "curation")}
    curated(workspace, decontaminated(workspace, evaluation(tmp_path, "question high number 0")))
    after = {row["uid"]: row["quality"] for row in rows_of(workspace, "curation")}
    assert after == before
