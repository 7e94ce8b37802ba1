"""The flow of rows from read to release, laid out as a tree of bands that never cross."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mixup.ledger import (
    FATE_DUPLICATE,
    FATE_MERGED,
    FATE_ORIGINAL,
    FATE_QUARANTINED,
    left_out,
)
from mixup.report.wording import fate_label, sentence, words

WIDTH = 1000.0
_COLUMNS = (0.0, 255.0, 510.0, 765.0)
_BAR = 12.0
_HEIGHT = 330.0  # of all rows together
_SLOT = 34.0  # least height of a fate, so that its two lines of text fit
_GAP = 10.0

_ORIGINALS = (FATE_ORIGINAL, left_out("original_not_selected"))
_CLUSTERED = (
    FATE_MERGED,
    left_out("cluster_not_selected"),
    left_out("cluster_accepted"),
    left_out("cluster_rejected"),
    left_out("cluster_not_distilled"),
)
_SHORT = {
    FATE_ORIGINAL: "Released as they are",
    FATE_MERGED: "Merged into distilled rows",
    FATE_DUPLICATE: "Exact duplicates",
    left_out("near_duplicate"): "Near duplicates",
    left_out("original_not_selected"): "Not selected",
    left_out("cluster_not_selected"): "Cluster not selected",
    left_out("cluster_rejected"): "Cluster rejected",
    left_out("cluster_not_distilled"): "Cluster not distilled",
}
# Fates of whole clusters lead to the clusters that share them.
_PICKS = {
    FATE_MERGED: "verdict:released",
    left_out("cluster_not_selected"): "verdict:accepted",
    left_out("cluster_rejected"): "verdict:rejected",
    left_out("cluster_not_distilled"): "verdict:not_distilled",
}


@dataclass(frozen=True)
class Node:
    """A group of rows: a fate, or several that go on together."""

    label: str
    kind: str
    count: int
    children: tuple[Node, ...] = ()
    pick: str | None = None


@dataclass(frozen=True)
class Box:
    """Where a node is drawn."""

    node: Node
    x: float
    y: float
    height: float
    depth: int


@dataclass(frozen=True)
class Band:
    """A band between two nodes, as an SVG path."""

    kind: str
    path: str


@dataclass
class Flow:
    """The drawing."""

    boxes: list[Box] = field(default_factory=list)
    bands: list[Band] = field(default_factory=list)
    height: float = 0.0


def flow_tree(fates: Mapping[str, int]) -> Node:
    """The fates as a tree: read, then distinct, then what each part came to."""
    rest = [
        name
        for name in sorted(fates, key=lambda name: (-fates[name], name))
        if name not in (*_ORIGINALS, *_CLUSTERED, FATE_DUPLICATE, FATE_QUARANTINED)
    ]
    # A long tail of small reasons is told in the table; the drawing has room for the large ones.
    named, few = rest[:6], rest[6:]
    distinct = [
        _group("Good as they are", _ORIGINALS, fates),
        _group("In clusters", _CLUSTERED, fates),
        *(_leaf(name, fates) for name in named),
        Node(f"{len(few)} other reasons", "left_out", sum(fates[name] for name in few)),
    ]
    top = [
        _parent("Distinct rows", distinct),
        _leaf(FATE_DUPLICATE, fates),
        _leaf(FATE_QUARANTINED, fates),
    ]
    return _parent("Read", top)


def _group(label: str, names: Sequence[str], fates: Mapping[str, int]) -> Node:
    return _parent(label, [_leaf(name, fates) for name in names])


def _parent(label: str, children: Sequence[Node]) -> Node:
    some = tuple(child for child in children if child.count)
    return Node(label, "through", sum(child.count for child in some), some)


def _leaf(name: str, fates: Mapping[str, int]) -> Node:
    kind, _, reason = name.partition(":")
    label = _SHORT.get(name) or (sentence(words(reason)) if reason else fate_label(name))
    known = (FATE_ORIGINAL, FATE_MERGED, FATE_DUPLICATE, FATE_QUARANTINED)
    style = kind if kind in known else "left_out"
    return Node(label, style, fates.get(name, 0), pick=_PICKS.get(name))


def layout(root: Node) -> Flow:
    """Place a tree: its height is that of its leaves, which have room for a label each."""
    flow = Flow()
    if root.count:
        flow.height = _place(flow, root, 0, 0.0, _HEIGHT / root.count)
    return flow


def _place(flow: Flow, node: Node, depth: int, y: float, scale: float) -> float:
    """Place a node with its children from ``y`` on; where what follows may start."""
    height = max(1.0, node.count * scale)
    x = _COLUMNS[depth]
    flow.boxes.append(Box(node, x, y, height, depth))
    below, start = y, y
    for child in node.children:
        thick = max(1.0, child.count * scale)
        left, right = x + _BAR, _COLUMNS[depth + 1]
        flow.bands.append(Band(child.kind, _band(left, start, right, below, thick)))
        below = _place(flow, child, depth + 1, below, scale)
        start += child.count * scale
    return max(below, y + max(height, _SLOT) + _GAP) if not node.children else below


def _band(left: float, start: float, right: float, end: float, thick: float) -> str:
    middle = (left + right) / 2
    return (
        f"M{left:.1f} {start:.1f}C{middle:.1f} {start:.1f} {middle:.1f} {end:.1f} {right:.1f} "
        f"{end:.1f}V{end + thick:.1f}C{middle:.1f} {end + thick:.1f} {middle:.1f} "
        f"{start + thick:.1f} {left:.1f} {start + thick:.1f}Z"
    )
