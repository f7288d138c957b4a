"""The process that post-processing workers are born from, and what a worker does.

It imports and warms everything once, in a single thread; each worker is a fork of it. So a new worker is there in
milliseconds, all share the memory of what was loaded, and none has a copy of a process that runs many threads. Nursery
and workers end when the service that they belong to lets go of its sockets, however it ended.
"""

from __future__ import annotations

import gc
import mmap
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from app.nuclei import hover
from app.nuclei.lanes import POLITENESS
from app.nuclei.scratch import borrow
from app.nuclei.separation import Separated, separated
from app.nuclei.types import HoverMaps
from app.serving.memory import give_back
from app.serving.segments import Task
from app.serving.wire import receive, send

OOM_SCORE = "500"
SPARE = 4.0  # times the limit that the service keeps
KEPT, KEPT_BYTES = 4, 16 << 20  # how many segments stay mapped, and how large they may be
_kept: dict[int, mmap.mmap] = {}


def main(descriptor: int) -> None:
    """Warm up, then bear a worker for every socket that comes over this one, until its other end is closed."""
    cv2.setNumThreads(1)
    hover.warm_up()
    gc.collect()
    gc.freeze()  # a collection in a worker would copy every page it looks at
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for workers: they leave no zombies
    with suppress(EOFError, ConnectionError), socket.socket(fileno=descriptor) as service:
        send(service, os.getpid())
        while True:
            _, (line,) = receive(service, 1)
            worker = os.fork()
            if not worker:
                service.close()
                _live(line)
            os.close(line)
            send(service, worker)


def _live(line: int) -> None:
    """A worker's life; does not return."""
    os.nice(POLITENESS)  # the service goes first: it has a network to feed, and callers to answer
    status = 1
    try:
        with suppress(OSError):  # where memory runs out, a worker goes before the service does
            Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
        with suppress(EOFError, ConnectionError), socket.socket(fileno=line) as service:
            while True:
                _work(service)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _work(service: socket.socket) -> None:
    (task, limit_s), (file,) = receive(service, 1)
    signal.setitimer(signal.ITIMER_REAL, SPARE * limit_s)  # ends it, should nobody be left who does
    memory = _mapped(file, task.size)
    try:
        answer: Separated | Exception = _separated(memory, task)
    except Exception as error:
        answer = error
    signal.setitimer(signal.ITIMER_REAL, 0)
    send(service, answer)
    del memory, answer
    if task.is_large:
        give_back()


def _mapped(file: int, size: int) -> mmap.mmap:
    """The memory behind a descriptor, which is closed; small ones stay mapped, as they come again and again."""
    try:
        number = os.fstat(file).st_ino  # unique while it is mapped
        if number not in _kept:
            if size > KEPT_BYTES:
                return mmap.mmap(file, size)
            while len(_kept) >= KEPT:
                del _kept[next(iter(_kept))]
            _kept[number] = mmap.mmap(file, size)
        return _kept[number]
    finally:
        os.close(file)


def _separated(memory: mmap.mmap, task: Task) -> Separated:
    """The nuclei; the label map is not sent but laid into the memory."""
    maps = task.maps(memory)
    if not task.is_large:  # another worker may have to begin again
        own = borrow("nursery.type_prob", maps.type_prob.shape, np.float32)
        own[...] = maps.type_prob
        maps = HoverMaps(maps.np_prob, maps.hv, own)
    found = separated(maps, task.method)
    task.grid.array(memory, np.int32)[...] = found.grid
    return Separated(np.empty((0, 0), np.int32), found.nuclei, found.repaired, found.dropped)
