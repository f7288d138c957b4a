"""Who separates nuclei? Processes of the service that may crash or hang: that harms one image, not the service.

Native code does the work (OpenCV, compiled kernels), and a fault in it ends the process that it runs in. Maps lie in
shared memory, a worker lays the label map beside them, and only the table of nuclei travels. Threads would do a tenth
more of this alone (`tests.benchmarks.bench_workers`), which is a hundredth of a request beside the network on a CPU;
but they can be neither killed nor survived.

A request's thread waits for its worker anyway, so a socket per worker is all that is needed: no queue, no thread that
hands out tasks. Images smaller than `LARGE_BYTES` are tried again once when their worker crashed; what takes too long
is not.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Protocol

import numpy as np

import app
from app.nuclei import hover
from app.nuclei.errors import EngineUnavailable
from app.nuclei.separation import Here, Method, Separated
from app.nuclei.types import HoverMaps
from app.serving.segments import Segment, Segments, Task
from app.serving.slots import Slots
from app.serving.wire import receive, send
from app.serving.work import WorkClass

START_S = 120.0  # with kernels that must be compiled first
BIRTH_S = 10.0
LIMIT_S, LIMIT_S_PER_MPX = 5.0, 5.0
MOST_IMAGES = 1000  # of one worker, so that what it leaks goes
BOOT = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("app", sys.argv[1], submodule_search_locations=[sys.argv[2]])
sys.modules["app"] = package = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
from app.serving.nursery import main
main(int(sys.argv[3]))
"""
"""Starts the nursery from the very code that runs here, wherever it lies, with nothing put before other modules."""
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")}
AVAILABLE = all(hasattr(os, name) for name in ("memfd_create", "pidfd_open", "fork"))
"""Whether the system has what this needs; Linux does."""


class Postprocess(Protocol):
    """Where maps are gathered and nuclei separated: a `Separator` that is opened and closed."""

    def start(self) -> None:
        """Be ready for the first image.

        Raises:
            EngineUnavailable: it cannot.
        """
        ...

    def blank(self, height: int, width: int, channels: int) -> HoverMaps:
        """As `Separator`."""
        ...

    def separate(self, maps: HoverMaps, method: Method) -> Separated:
        """As `Separator`."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class Threads(Here):
    """Separates in the thread that asks, for systems and settings without workers."""

    def start(self) -> None:
        """Have the kernels compiled."""
        hover.warm_up()

    def close(self) -> None:
        """Nothing to do."""


class Turn:
    """A `Separator` for one request: its image waits for a slot."""

    def __init__(self, postprocess: Postprocess, slots: Slots, work_class: WorkClass) -> None:
        """Nothing waited yet.

        Args:
            postprocess: that all share.
            slots: that all wait for.
            work_class: of the request.
        """
        self._postprocess, self._slots, self._work_class = postprocess, slots, work_class
        self._waited_s = 0.0

    def blank(self, height: int, width: int, channels: int) -> HoverMaps:
        """As `Postprocess`."""
        return self._postprocess.blank(height, width, channels)

    def separate(self, maps: HoverMaps, method: Method) -> Separated:
        """As `Postprocess`, once a slot is free."""
        began = time.perf_counter()
        with self._slots.slot(self._work_class):
            self._waited_s = time.perf_counter() - began
            return self._postprocess.separate(maps, method)

    def observing(self, observe: Callable[[str, float], None]) -> Callable[[str, float], None]:
        """What tells of the wait apart from the work: for a `Segmenter`, which knows of one stage only."""

        def told(stage: str, seconds: float) -> None:
            if stage == "postprocess":
                observe("slot_wait", self._waited_s)
                seconds -= self._waited_s
            observe(stage, seconds)

        return told


class WorkerFault(Exception):
    """Workers crashed over an image, or one ran out of time."""


class Worker:
    """One process, for one image at a time."""

    def __init__(self, line: socket.socket, pid: int) -> None:
        """A process that was just born.

        Args:
            line: to it.
            pid: of it.
        """
        self._line, self._handle = line, os.pidfd_open(pid)
        self.pid, self.images = pid, 0

    def separate(self, task: Task, file: int, limit_s: float) -> Separated:
        """Have maps separated; the label map comes to lie in their segment, whose descriptor this is.

        Raises:
            EOFError, ConnectionError: it crashed.
            TimeoutError: it took longer than so many seconds.
            Exception: what the separation itself raised.
        """
        self.images += 1
        self._line.settimeout(limit_s)
        send(self._line, task, file)
        answer = receive(self._line)[0]
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Separated)
        return answer

    def end(self) -> None:
        """Kill it, if it still lives."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        os.close(self._handle)
        self._line.close()


class Nursery:
    """The process that workers are forked from; see `app.serving.nursery`."""

    def __init__(self) -> None:
        """Start it.

        Raises:
            OSError, EOFError: it cannot be started.
        """
        self._line, theirs = socket.socketpair()
        code = Path(app.__file__)
        command = sys.executable, "-P", "-c", BOOT, str(code), str(code.parent), str(theirs.fileno())
        try:
            with theirs:
                self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=os.environ | ONE_THREAD)
        except BaseException:
            self._line.close()
            raise
        try:
            self._line.settimeout(START_S)
            receive(self._line)
        except BaseException:
            self.close()
            raise

    def bear(self) -> Worker:
        """A new worker.

        Raises:
            OSError, EOFError: the nursery is gone.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._line.settimeout(BIRTH_S)
                send(self._line, None, theirs.fileno())
            return Worker(ours, receive(self._line)[0])
        except BaseException:
            ours.close()
            raise

    def close(self) -> None:
        """End it; its workers end when their own lines are closed."""
        self._line.close()
        self._process.kill()
        self._process.wait()


class Processes:
    """So many worker processes; who asks takes one, alone, or waits for one. For threads."""

    def __init__(self, count: int, restarted: Callable[[str], None], limit_s: float = LIMIT_S) -> None:
        """None born yet.

        Args:
            count: workers, at least 1.
            restarted: told why one is replaced: crash, timeout, recycle.
            limit_s: seconds that an image may take; 5 more for each megapixel.
        """
        self._restarted, self._limit_s = restarted, limit_s
        self._segments, self._lock = Segments(), threading.Lock()
        self._nursery: Nursery | None = None
        self._idle: LifoQueue[Worker | None] = LifoQueue()  # None: to be born when it is wanted
        for _ in range(count):
            self._idle.put(None)
        self._count = count

    def start(self) -> None:
        """Bear those that are not there yet.

        Raises:
            EngineUnavailable: they cannot be started.
        """
        places = [self._idle.get() for _ in range(self._count)]
        try:
            places = [worker or self._born() for worker in places]
        finally:
            for worker in places:
                self._idle.put(worker)

    def blank(self, height: int, width: int, channels: int) -> HoverMaps:
        """Maps (H, W) of arbitrary content, where workers can read them."""
        return self._segments.blank(height, width, channels)

    def separate(self, maps: HoverMaps, method: Method) -> Separated:
        """The nuclei of maps, which are used up.

        Raises:
            WorkerFault: two workers crashed over it, or one took too long.
            EngineUnavailable: no worker can be started.
            Exception: what the separation itself raised.
        """
        maps, segment = self._segments.holding(maps)
        task = Task.of(maps, segment, method)
        found = self._tried(task, segment)
        if found is None and not task.is_large:  # its maps are changed in place
            found = self._tried(task, segment)
        if found is None:
            raise WorkerFault("the process that separates nuclei crashed over this image")
        grid = task.grid.array(segment, np.int32).copy()
        self._segments.give_back(segment)
        return Separated(grid, found.nuclei, found.repaired, found.dropped)

    def close(self) -> None:
        """End all workers that are idle, and the nursery."""
        with suppress(Empty):
            while True:
                worker = self._idle.get_nowait()
                if worker:
                    worker.end()
        with self._lock:
            if self._nursery:
                self._nursery.close()
                self._nursery = None

    def _tried(self, task: Task, segment: Segment) -> Separated | None:
        """What a worker made of it; None if it crashed."""
        limit_s = self._limit_s + LIMIT_S_PER_MPX * task.pixels / 1e6
        worker, reason = self._idle.get(), "crash"
        try:
            worker = worker or self._born()
            found = worker.separate(task, segment.file, limit_s)
            reason = "recycle" if worker.images >= MOST_IMAGES else ""
        except TimeoutError:
            reason = "timeout"
            raise WorkerFault(f"separating this image took longer than {limit_s:.0f} s") from None
        except (EOFError, ConnectionError):
            return None
        except Exception:
            reason = ""  # it lives, and said what is wrong
            raise
        finally:
            if worker and reason:
                self._restarted(reason)
                worker.end()
                worker = None
            self._idle.put(worker)
        return found

    def _born(self) -> Worker:
        with self._lock:
            for _ in range(2):
                try:
                    self._nursery = self._nursery or Nursery()
                    return self._nursery.bear()
                except (OSError, EOFError):  # it was killed, say by the system for want of memory
                    if self._nursery:
                        self._nursery.close()
                    self._nursery = None
        raise EngineUnavailable(
            "the processes that separate nuclei cannot be started; KARYON_POSTPROCESS_WORKERS=0 does without them"
        )
