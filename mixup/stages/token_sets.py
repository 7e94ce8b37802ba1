"""Token sets: what a training job reads, and where the one of some sources is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mixup.models.tokenizing import Encoding
from mixup.records import TOKEN_SETS, content_key
from mixup.stages.examples import Source
from mixup.stages.streams import UNREACHABLE
from mixup.tables import snapshot
from mixup.workspace import Workspace

KEPT, DUPLICATE = "kept", "duplicate"


@dataclass(frozen=True)
class TokenSet:
    """What a training job learns from.

    Attributes:
        name: Its folder below ``TOKEN_SETS``: a key of its sources and its encoding.
        revision: A key of its examples and its encoding: equal for equal rows in equal places.
        encoding: The encoding's revision.
        rows: Its rows.
        tokens: Their tokens.
        learned: The tokens among them that are in the loss.
        counts: Of the rows that were read: ``kept``, ``duplicate``, and those left out by reason.
        files: The files of the table ``tokens`` that it reads.
    """

    name: str
    revision: str
    encoding: str
    rows: int
    tokens: int
    learned: int
    counts: Mapping[str, int]
    files: tuple[str, ...]

    @property
    def left_out(self) -> dict[str, int]:
        """The rows that are not learned from, by reason; duplicates are not among them."""
        return {name: n for name, n in self.counts.items() if n and name not in (KEPT, DUPLICATE)}


def set_name(sources: Sequence[Source], revision: str) -> str:
    """The name of the token set of some sources under an encoding's revision."""
    return content_key("token set", sorted(source.key for source in sources), revision)[:16]


def stored_set(
    workspace: Workspace, sources: Sequence[Source], encoding: Encoding
) -> TokenSet | None:
    """The token set of some sources, if it is there and the table still has the files it reads."""
    name = set_name(sources, encoding.revision())
    document = workspace.read_json(f"{TOKEN_SETS}/{name}/set.json")
    if document is None or document["counts"].get(UNREACHABLE):
        return None
    found = TokenSet(**{**document, "files": tuple(document["files"])})
    return found if set(found.files) <= set(snapshot(workspace, "tokens").paths) else None
