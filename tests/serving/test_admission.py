"""Places are few, refusals are early, and every place comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.nuclei.errors import Overloaded
from app.serving.admission import WaitingRoom


def test_one_request_too_many_is_refused():
    room = WaitingRoom(places=1, workers=1)
    with room.admit(), pytest.raises(Overloaded):
        room.check()


def test_a_place_comes_back_even_after_a_fault():
    room = WaitingRoom(places=1, workers=1)
    with pytest.raises(ZeroDivisionError), room.admit():
        raise ZeroDivisionError
    with room.admit():
        assert room.inside == 1
    assert room.inside == 0


def test_the_wait_is_what_those_inside_still_need():
    room = WaitingRoom(places=10, workers=2, jitter=lambda: 0.0)
    for _ in range(200):
        room.served(6.0)
    with room.admit(), room.admit(), room.admit():
        assert room.retry_after_s() == 9


@given(st.lists(st.floats(0, 1e6), max_size=30), st.integers(0, 20), st.floats(0, 1))
def test_the_wait_stays_within_its_bounds(times, inside, draw):
    room = WaitingRoom(places=50, workers=1, jitter=lambda: draw)
    for seconds in times:
        room.served(seconds)
    room._inside = inside
    assert 1 <= room.retry_after_s() <= 120


def test_jitter_only_adds():
    calm, jumpy = (WaitingRoom(50, 1, jitter=lambda j=j: j) for j in (0.0, 1.0))
    calm._inside = jumpy._inside = 40
    assert (calm.retry_after_s(), jumpy.retry_after_s()) == (40, 50)
