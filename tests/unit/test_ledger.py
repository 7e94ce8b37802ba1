import logging

import pytest

from mixup.errors import LedgerError
from mixup.ledger import StageCounts, check_fates, left_out


def counts(**changed) -> StageCounts:
    given = {"rows_in": 10, "parts": {"kept": 7, "bad": 2, "odd": 1}, "dropped": ("bad", "odd")}
    return StageCounts(stage="rate", unit="records", **{**given, **changed})


def test_counts_that_add_up_pass_and_are_returned():
    made = counts()
    assert made.check() is made
    assert (made.rows_dropped, made.rows_out) == (3, 7)


@pytest.mark.parametrize("parts", [{}, {"kept": 9}, {"kept": 11}, {"kept": 10, "bad": 1}])
def test_counts_that_do_not_add_up_name_stage_unit_and_parts(parts):
    with pytest.raises(
        LedgerError, match=r"stage rate: 10 records came in, but the parts .*add up"
    ):
        counts(parts=parts).check()


def test_a_dropped_part_that_is_absent_counts_as_none():
    made = counts(parts={"kept": 10}).check()
    assert (made.rows_dropped, made.rows_out) == (0, 10)


def test_no_rows_and_no_parts_add_up():
    assert counts(rows_in=0, parts={}).check().rows_out == 0


def test_a_stage_ends_with_one_line(caplog):
    with caplog.at_level(logging.INFO, "mixup.ledger"):
        counts(seconds=1.25, parts={"kept": 8, "bad": 2, "odd": 0}).log()
    (line,) = caplog.messages
    assert line == "rate: 10 records in, 2 dropped, 1.2 s (kept 8, bad 2)"


def test_fates_must_sum_to_the_occurrences():
    fates = {"original": 3, "duplicate": 1, left_out("singleton"): 2}
    check_fates(fates, 6)
    for wrong in (5, 7):
        with pytest.raises(LedgerError, match=f"{wrong} rows came in, but 6 have a fate"):
            check_fates(fates, wrong)


def test_left_out_names_the_reason():
    assert left_out("licence") == "left_out:licence"
