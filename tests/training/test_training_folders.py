"""What the vacuum takes for unfinished, by the documents that training writes last."""

from __future__ import annotations

from mixup.stages import vacuum
from mixup.training.checkpoints import FOLDER, RECORD
from mixup.training.export import DESCRIPTION, MODELS


def test_the_vacuum_knows_the_documents_that_are_written_last():
    assert (vacuum._CHECKPOINTS, vacuum._CHECKPOINT) == (FOLDER, RECORD)
    assert vacuum._DESCRIBED_BY[MODELS] == DESCRIPTION
