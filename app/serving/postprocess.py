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
from app.nuclei.errors import EngineUnavailable, NotReady
from app.nuclei.separation import Here, Method, Separated, SeparatorFault
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
import importlib.util, signal, sys
for ignored in (signal.SIGINT, signal.SIGTERM):
    signal.signal(ignored, signal.SIG_IGN)
spec = importlib.util.spec_from_file_location("app", sys.argv[1], submodule_search_locations=[sys.argv[2]])
sys.modules["app"] = package = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
from app.serving.nursery import main
main(int(sys.argv[3]))
"""
"""Starts the nursery from the very code that runs here, wherever it lies, with nothing put before other modules.
Signals are meant for the service, which lets its work end first.
"""
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

    def separate(self, task: Task, file: int, limit_s: float) -> Separated | Exception:
        """Have maps separated; the label map comes to lie in their segment, whose descriptor this is.

        Returns:
            What the worker answered, be it what the separation raised. After any error it must not be asked again:
            its next answer might be the one to this image.

        Raises:
            EOFError, ConnectionError: it crashed.
            TimeoutError: it took longer than so many seconds.
        """
        self.images += 1
        self._line.settimeout(limit_s)
        send(self._line, (task, limit_s), file)
        answer: Separated | Exception = receive(self._line)[0]
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
        """Start it; it warms up by itself.

        Raises:
            OSError: it cannot be started.
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
        self._is_warm = False

    def bear(self) -> Worker:
        """A new worker.

        Raises:
            OSError, EOFError: the nursery is gone.
        """
        if not self._is_warm:
            self._line.settimeout(START_S)
            receive(self._line)
            self._is_warm = True
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._line.settimeout(BIRTH_S)
                send(self._line, None, theirs.fileno())
            return Worker(ours, receive(self._line)[0])
        except BaseException:
            ours.close()
            raise

    def kill(self) -> None:
        """End it, whatever it does; who waits for it is told. Its workers end when their own lines are closed."""
        self._process.kill()

    def close(self) -> None:
        """Kill it, and let go."""
        self.kill()
        self._process.wait()
        self._line.close()


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
        self._closed = False
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
            for i, worker in enumerate(places):
                places[i] = worker or self._born()
        finally:
            for worker in places:
                self._idle.put(worker)

    def blank(self, height: int, width: int, channels: int) -> HoverMaps:
        """Maps (H, W) of arbitrary content, where workers can read them."""
        return self._segments.blank(height, width, channels)

    def separate(self, maps: HoverMaps, method: Method) -> Separated:
        """The nuclei of maps, which are used up.

        Raises:
            SeparatorFault: two workers crashed over it, or one took too long.
            NotReady: no worker can be started now.
            Exception: what the separation itself raised.
        """
        maps, segment = self._segments.holding(maps)
        task = Task.of(maps, segment, method)
        found = self._tried(task, segment)
        if found is None and not task.is_large:  # its maps are changed in place
            found = self._tried(task, segment)
        if found is None:
            raise SeparatorFault("the process that separates nuclei crashed over this image")
        grid = task.grid.array(segment, np.int32).copy()
        self._segments.give_back(segment)
        return Separated(grid, found.nuclei, found.repaired, found.dropped)

    def close(self) -> None:
        """End all workers that are idle, and the nursery, also one that somebody waits for."""
        self._closed = True
        if nursery := self._nursery:
            nursery.kill()
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
            answer = worker.separate(task, segment.file, limit_s)
            reason = "recycle" if worker.images >= MOST_IMAGES else ""
        except TimeoutError:
            reason = "timeout"
            raise SeparatorFault(f"separating this image took longer than {limit_s:.0f} s") from None
        except (EOFError, ConnectionError):
            return None
        except EngineUnavailable as error:
            raise NotReady(str(error)) from error
        finally:  # whatever else went wrong, an answer may still be on its way: that worker is not asked again
            if worker and reason:
                self._restarted(reason)
                worker.end()
                worker = None
            self._idle.put(worker)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _born(self) -> Worker:
        with self._lock:
            for _ in range(2):
                if self._closed:
                    break
                try:
                    self._nursery = self._nursery or Nursery()
                    return self._nursery.bear()
                except (OSError, EOFError):  # it was killed, say by the system for want of memory
                    if self._nursery:
                        self._nursery.close()
                    self._nursery = None
        raise EngineUnavailable("the processes that separate nuclei cannot be started")
