"""The drawing of the flow keeps every row and lets nothing overlap."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mixup.report.flow import Node, flow_tree, layout

FATES = {
    "original": 90,
    "left_out:original_not_selected": 10,
    "merged": 30,
    "left_out:cluster_rejected": 70,
    "left_out:singleton": 500,
    "left_out:near_duplicate": 40,
    "duplicate": 200,
    "quarantined": 60,
}
NAMES = [*FATES, "left_out:licence", "left_out:chat", "left_out:too_long", "left_out:unrated"]


def leaves(node: Node) -> list[Node]:
    return [leaf for child in node.children for leaf in leaves(child)] if node.children else [node]


def test_the_tree_groups_what_goes_together():
    root = flow_tree(FATES)
    assert (root.label, root.count) == ("Read", 1_000)
    distinct, duplicates, quarantined = root.children
    assert (distinct.count, duplicates.count, quarantined.count) == (740, 200, 60)
    assert [(child.label, child.count) for child in distinct.children] == [
        ("Good as they are", 100),
        ("In clusters", 100),
        ("Singleton", 500),
        ("Near duplicates", 40),
    ]
    assert [leaf.pick for leaf in leaves(distinct.children[1])] == [
        "verdict:released",
        "verdict:rejected",
    ]


def test_many_small_reasons_are_told_as_one():
    fates = {f"left_out:reason_{at}": at + 1 for at in range(10)}
    (distinct,) = flow_tree(fates).children
    assert [child.count for child in distinct.children] == [10, 9, 8, 7, 6, 5, 10]
    assert distinct.children[-1].label == "4 other reasons"


def test_nothing_read_nothing_drawn():
    flow = layout(flow_tree({}))
    assert (flow.boxes, flow.bands, flow.height) == ([], [], 0.0)


@given(st.dictionaries(st.sampled_from(NAMES), st.integers(0, 10**9)))
def test_every_row_is_drawn_once_and_boxes_do_not_overlap(fates):
    root = flow_tree(fates)
    assert root.count == sum(fates.values())
    assert sum(leaf.count for leaf in leaves(root)) == root.count
    flow = layout(root)
    for depth in range(4):
        column = [box for box in flow.boxes if box.depth == depth]
        for upper, lower in pairwise(column):
            # Bars of less than a pixel are drawn as one.
            assert upper.y + upper.height <= lower.y + 12
    assert all(box.y + box.height <= flow.height + 12 for box in flow.boxes)


def test_labels_of_fates_have_room():
    boxes = [box for box in layout(flow_tree(FATES)).boxes if not box.node.children]
    for depth in range(4):
        column = [box for box in boxes if box.depth == depth]
        assert all(lower.y - upper.y >= 34 for upper, lower in pairwise(column))
