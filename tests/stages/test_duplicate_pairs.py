"""The texts of near-duplicates and of their representatives, looked up over all buckets."""

import pytest
from made_pool import Row, add, make_workspace, snapshots

from mixup.errors import LedgerError
from mixup.report.curation import PAIR_CHARS
from mixup.stages.duplicate_pairs import duplicate_pairs
from mixup.stages.survey_scores import RowPair

ROWS = [Row(f"r{n}" + "x" * (PAIR_CHARS if n == 3 else 0), topic=0, variant=n) for n in range(8)]
AGAIN = Row("r0", topic=0, variant=0, file="file-2")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    made = make_workspace(tmp_path_factory.mktemp("pairs") / "w", buckets=5)
    add(made, [*ROWS, AGAIN])
    return made


def pairs_of(workspace, *pairs: RowPair):
    return duplicate_pairs(workspace, snapshots(workspace), ("file-1", "file-2"), pairs)


def test_both_rows_come_with_their_texts_and_sources(workspace):
    first, second = pairs_of(
        workspace,
        RowPair(ROWS[1].uid, ROWS[0].uid, 0.96, True),
        RowPair(ROWS[3].uid, ROWS[0].uid, None, None),
    )
    assert first.left.text == "user: question r1\n\nassistant: answer r1"
    assert (first.left.uid, first.left.sources) == (ROWS[1].uid, ("source-file-1",))
    assert first.kept.sources == ("source-file-1", "source-file-2")
    assert (first.similarity, first.same_source) == (0.96, True)
    assert first.kept == second.kept
    whole = "\n\n".join(f"{role}: {text}" for role, text in ROWS[3].turns)
    assert second.left.text == whole[:PAIR_CHARS]
    assert second.left.lost == len(whole) - PAIR_CHARS > 0
    assert second.similarity is None


def test_no_pair_reads_nothing(workspace):
    assert pairs_of(workspace) == ()


def test_a_row_without_a_record_is_an_error(workspace):
    with pytest.raises(LedgerError, match="0123"):
        pairs_of(workspace, RowPair("0123" * 8, ROWS[0].uid, 0.96, True))
