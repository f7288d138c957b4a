"""How is one job done, window by window, so that nothing that was finished is ever done again?

A window is finished when its tile is committed; a job that goes on, wherever and after whatever, asks the store which
windows it has. A fixed number of windows is in work at once, whatever the size of the slide: while the network sees
one, another is read or separated.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from sqlalchemy import select

from app.nuclei import tiling
from app.nuclei.errors import Abandoned, DeadlineExceeded, InferenceFailed, NotReady, Overloaded
from app.nuclei.separation import SeparatorFault
from app.slides.analyst import Analyst
from app.slides.database import Database
from app.slides.jobbook import Job
from app.slides.library import Library
from app.slides.places import Box, Place
from app.slides.records import ModelKey, place_of
from app.slides.regions import Grid, grid_at
from app.slides.schema import tiles
from app.slides.sources import Source
from app.slides.tissue import find_tissue
from app.slides.windows import Window, on_grid, on_slide, windows

T = TypeVar("T")
PASSING = (DeadlineExceeded, Overloaded, NotReady, SeparatorFault)  # load, a database that is restarted, a dead worker
PATIENCE = 8  # times that a step is tried again for such reasons
PAUSE_S = 0.5  # before the second time; doubled each time


@dataclass
class Progress:
    """How far a job is, and how fast.

    Attributes:
        total: windows; 0 until they are counted.
        done: of them.
    """

    total: int = 0
    done: int = 0
    _found: int = 0
    _began: float = field(default_factory=time.monotonic)

    def begin(self, total: int, done: int) -> None:
        """All are counted; so many were done by an earlier run."""
        self.total, self.done, self._found, self._began = total, done, done, time.monotonic()

    @property
    def rate(self) -> float:
        """Windows per second of this run; 0 before the first one."""
        return (self.done - self._found) / max(1e-3, time.monotonic() - self._began)


@dataclass(frozen=True, slots=True)
class Todo:
    """A window, and which of its patches show tissue."""

    window: Window
    wanted: tuple[bool, ...]


@dataclass(frozen=True)
class Run:
    """A job that is being done.

    Attributes:
        library: the slide is in.
        job: what is to be done.
        analyst: looks at the windows.
        side: of a window's core, pixels at the model's scale, about.
        at_once: windows in work.
        advance: called once all windows are counted, and after each one; what it raises ends the run.
        progress: so far.
    """

    library: Library
    job: Job
    analyst: Analyst
    side: int
    at_once: int
    advance: Callable[[], None] = lambda: None
    progress: Progress = field(default_factory=Progress)
    _stop: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        """End soon, from any thread; what is in work is given up, what is finished stays."""
        self._stop.set()
        self.analyst.cancel()

    def work(self) -> None:
        """Do all windows that are not done.

        Raises:
            Abandoned: `stop` was called.
            NotFound: the slide or its file is gone.
            Conflict: the slide holds results of another model, or its file is another one.
            StorageFull: there is no room; what is done is kept.
            Refusal: whatever else is wrong with pixels, model or store.
        """
        slide = self.library.store.slide(self.job.slide_id)
        with self.library.open(slide) as source:
            grid = grid_at(source, self.job.mpp, self.analyst.artifact.manifest.mpp)
            planned = self._planned(source, grid)
            size = (source.levels[0].width, source.levels[0].height)
            finished = done_places(self.library.store.database, slide.id, self.analyst.key(self.job.mpp))
            missing = [each for each in planned if not _answered(each.window.place(grid, size), finished)]
            self.progress.begin(len(planned), len(planned) - len(missing))
            self.advance()
            self._all(missing, partial(self._one, source, grid))

    def _planned(self, source: Source, grid: Grid) -> list[Todo]:
        """The windows with tissue; without any, one of glass: its technical check says why nothing was found."""
        manifest = self.analyst.artifact.manifest
        plan = tiling.plan(grid.height, grid.width, manifest.patch_sizes, manifest.margin)
        region = on_grid(self.job.region, grid)
        size = (source.levels[0].width, source.levels[0].height)
        tissue = find_tissue(source, self.job.mpp, Box(*self.job.region).grown(plan.patch * max(*_scale(grid))))
        found = []
        for window in windows(plan, self.side, manifest.margin, region):
            areas = [each.grown(manifest.margin) for each in window.patches()]
            found.append(Todo(window, tuple(tissue.meets(on_slide(area, grid, size)) for area in areas)))
        return [each for each in found if any(each.wanted)] or found[:1]

    def _one(self, source: Source, grid: Grid, todo: Todo) -> None:
        tile = self._patiently(
            lambda: self.analyst.tile(source, grid, todo.window, todo.wanted, self.job.mpp),
        )
        self._patiently(lambda: self.library.store.put_tile(self.job.slide_id, tile))

    def _all(self, missing: Sequence[Todo], one: Callable[[Todo], None]) -> None:
        with ThreadPoolExecutor(self.at_once, thread_name_prefix="karyon-window") as pool:
            coming, open_ = iter(missing), set[Future[None]]()
            try:
                while True:
                    while len(open_) < self.at_once and not self._stop.is_set() and (todo := next(coming, None)):
                        open_.add(pool.submit(one, todo))
                    if not open_:
                        break
                    ended, open_ = wait(open_, return_when=FIRST_COMPLETED)
                    for each in ended:
                        each.result()
                        self.progress.done += 1
                    self.advance()
            except BaseException:
                self.stop()
                raise
        if self._stop.is_set():
            raise Abandoned

    def _patiently(self, step: Callable[[], T]) -> T:
        for attempt in range(PATIENCE):
            try:
                return step()
            except PASSING:
                if self._stop.wait(PAUSE_S * 2**attempt):
                    raise Abandoned from None
        try:
            return step()
        except SeparatorFault as error:
            raise InferenceFailed(
                "the nuclei of a window could not be separated, however often it was tried"
            ) from error


def done_places(database: Database, slide_id: str, key: ModelKey) -> dict[Box, Box]:
    """The windows of jobs of this model, with these settings, that are kept, and of each the part it answers for."""
    same = tiles.c.model_sha256 == key.sha256, tiles.c.config_sha256 == key.config_sha256
    query = select(*tiles.c).where(tiles.c.slide_id == slide_id, tiles.c.by_job, *same)
    with database.read() as connection:
        places = [place_of(row) for row in connection.execute(query)]
    return {place.box: place.core for place in places}


def _answered(place: Place, finished: Mapping[Box, Box]) -> bool:
    """Whether a window was done for all that is asked of it: one of a region may see the same and answer for less."""
    return place.box in finished and finished[place.box].holds(place.core)


def _scale(grid: Grid) -> tuple[float, float]:
    return grid.scale_x, grid.scale_y
