"""Keys do not change: what was written under one is found under it for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mixup.records import CANONICALIZATION, ROLES, Turn, content_key, uid_of

TEXT = st.text(st.characters(), max_size=30)
TURNS = st.lists(st.builds(Turn, st.sampled_from(ROLES), TEXT), max_size=4)


def test_known_keys():
    assert content_key("ab", "c") == "ce58c66d4b4f02696a2715ef864d2fbb"
    assert content_key("a", "bc") != content_key("ab", "c")
    assert (
        uid_of([Turn("user", 'é "x"\n'), Turn("assistant", "\ud800\\\x01")])
        == "6e6a526e88357f8ee9a200e64c084fd0"
    )


@given(TURNS)
def test_a_uid_is_the_content_key_of_its_turns(turns):
    assert uid_of(turns) == content_key(CANONICALIZATION, [list(turn) for turn in turns])
