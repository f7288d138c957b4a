"""What a process and its descendants hold is found out while their threads come and go."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.bench.processes import children, holdings

pytestmark = pytest.mark.skipif(
    not os.path.exists(f"/proc/self/task/{os.getpid()}/children"), reason="the system lists no children"
)


@contextmanager
def threads_that_come_and_go() -> Iterator[None]:
    over = threading.Event()

    def breed() -> None:
        while not over.is_set():
            short = [threading.Thread(target=os.getpid) for _ in range(8)]
            for thread in short:
                thread.start()
            for thread in short:
                thread.join()

    breeder = threading.Thread(target=breed)
    breeder.start()
    try:
        yield
    finally:
        over.set()
        breeder.join()


@contextmanager
def child() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.communicate(b"\n")


def test_a_child_is_found_each_time_while_threads_end():
    with threads_that_come_and_go(), child() as pid:
        assert all(pid in children(os.getpid()) for _ in range(500))


def test_a_process_that_is_gone_has_no_children_and_holds_nothing():
    with child() as pid:
        assert children(pid) == []
    held = holdings(pid)
    assert (children(pid), held.pss_bytes, held.threads, held.files) == ([], 0, 0, 0)
