"""Starting, ready, failed, draining: what each lets through."""

from __future__ import annotations

import threading

import pytest

from app.nuclei.errors import Draining, NotReady
from app.serving.lifecycle import Lifecycle, State


def test_ready_comes_after_the_start_and_not_before():
    lifecycle, go = Lifecycle(), threading.Event()
    lifecycle.start(lambda: go.wait(30), lambda error: None)
    with pytest.raises(NotReady):
        lifecycle.require_ready()
    go.set()
    assert lifecycle.wait_started(30)
    lifecycle.require_ready()


def test_a_start_that_fails_says_why_and_is_never_ready():
    lifecycle, reasons = Lifecycle(), []
    lifecycle.start(lambda: 1 // 0, reasons.append)
    lifecycle.wait_started(30)
    assert (lifecycle.state, [type(r) for r in reasons]) == (State.FAILED, [ZeroDivisionError])
    with pytest.raises(NotReady):
        lifecycle.require_ready()


def test_a_start_that_ends_while_draining_does_not_undo_it():
    lifecycle, go = Lifecycle(), threading.Event()
    lifecycle.start(lambda: go.wait(30), lambda error: None)
    lifecycle.drain()
    go.set()
    lifecycle.wait_started(30)
    with pytest.raises(Draining):
        lifecycle.require_ready()


def test_while_it_drains_it_is_unready_at_once_and_open_for_a_moment():
    lifecycle = Lifecycle()
    lifecycle.start(lambda: None, lambda error: None)
    lifecycle.wait_started(30)
    lifecycle.drain(delay_s=3600)
    lifecycle.require_open()
    with pytest.raises(Draining):
        lifecycle.require_ready()


def test_who_was_never_ready_is_not_open_while_it_drains():
    lifecycle = Lifecycle()
    lifecycle.drain(delay_s=3600)
    with pytest.raises(Draining):
        lifecycle.require_open()
