"""Licences of merged rows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixup.selection.licences import allowed, union

NAMES = st.sampled_from(["MIT", "mit", "Apache-2.0", "cc-by-4.0", "A OR B", "(A OR B)", "", None])


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        (["MIT"], "MIT"),
        (["MIT", "Apache-2.0", "MIT"], "Apache-2.0 AND MIT"),
        (["mit", "MIT"], "MIT"),
        ([None, "MIT", " "], "MIT AND unknown"),
        ([None, "", "Unknown"], "unknown"),
        ([], "unknown"),
        (["MIT AND BSD", "BSD"], "BSD AND MIT"),
        (["MIT OR BSD"], "MIT OR BSD"),
        (["MIT OR BSD", "X"], "(MIT OR BSD) AND X"),
        (["(MIT OR BSD) AND X", "(X)"], "(MIT OR BSD) AND X"),
        (["free for research or teaching"], "free for research or teaching"),
    ],
)
def test_union(licences, expected):
    assert union(licences) == expected


@given(st.lists(NAMES), st.lists(NAMES))
def test_union_of_unions(first, second):
    if first and second:
        assert union([union(first), union(second)]) == union(first + second)
    assert union(first) == union(reversed(first)) == union([union(first)])


@pytest.mark.parametrize(
    ("licence", "allow", "expected"),
    [
        ("MIT", None, True),
        ("unknown", None, True),
        ("mit", ["MIT"], True),
        ("MIT AND BSD", ["MIT"], False),
        ("MIT AND BSD", ["MIT", "BSD"], True),
        ("MIT AND unknown", ["MIT"], False),
        ("MIT AND unknown", ["MIT", "unknown"], True),
        ("(MIT OR GPL) AND BSD", ["MIT", "BSD"], True),
        ("(GPL OR AGPL) AND BSD", ["MIT", "BSD"], False),
        ("", ["MIT"], False),
        ("MIT", [], False),
    ],
)
def test_allowed(licence, allow, expected):
    assert allowed(licence, allow) is expected


@given(st.text(alphabet="()AB ORND", max_size=60))
def test_any_text_is_handled(text):
    assert isinstance(union([text, "MIT"]), str)
    assert allowed(text, ["nothing"]) is False
    assert union([union([text])]) == union([text])


def test_hostile_nesting():
    deep = "(" * 5000 + "MIT OR X" + ")" * 5000
    assert allowed(deep, ["MIT"]) is False
    assert union([deep, "MIT"]).endswith("AND MIT")
