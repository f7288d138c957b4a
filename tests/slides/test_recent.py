"""What is kept ready never takes more than it may."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.slides.recent import Recent


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12))))
def test_it_never_holds_more_than_it_may_and_the_last_one_is_there(puts):
    recent: Recent[int] = Recent(10)
    for key, size in puts:
        recent.put(key, size, size)
        assert recent.used_bytes <= 10
        assert recent.used_bytes == sum(value for k in range(6) if (value := recent.get(k)) is not None)
        assert size > 10 or recent.get(key) == size


def test_the_least_used_one_leaves_first():
    recent: Recent[str] = Recent(2)
    recent.put("a", "a", 1)
    recent.put("b", "b", 1)
    recent.get("a")
    recent.put("c", "c", 1)
    assert [recent.get(key) for key in "abc"] == ["a", None, "c"]
