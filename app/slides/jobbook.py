"""Which slide jobs are there, who works on them, and how far are they?

A worker holds a job by a lease that it renews with every step; when it dies, the lease runs out and another worker
takes the job over. What is done already is known from the tiles, which were committed with their nuclei; the figures
here are for people to watch. Every change names the state it starts from, so two workers, or a worker and a caller who
cancels, cannot both win.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, case, func, insert, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.nuclei.errors import Conflict, NotFound
from app.nuclei.types import Mpp, Profile
from app.slides.database import Database
from app.slides.places import Box
from app.slides.records import JobState, new_id, now_ms
from app.slides.schema import jobs, slides, turns

LEASE_MS = 60_000
OPEN: tuple[JobState, ...] = ("queued", "running")


@dataclass(frozen=True, slots=True)
class NewJob:
    """An analysis to be made.

    Attributes:
        slide_id: of the slide.
        region: level-0 pixels to be analysed.
        profile: which views; None for the device's default.
        model_name, model_version, model_sha256: which model.
        mpp: of level 0.
    """

    slide_id: str
    region: Box
    profile: Profile | None
    model_name: str
    model_version: str
    model_sha256: str
    mpp: Mpp


@dataclass(frozen=True, slots=True)
class Job(NewJob):
    """A job as it stands.

    Attributes:
        id: 32 hexadecimal digits.
        state: queued, running, done, failed or cancelled.
        total, done: windows; total is 0 until the job was planned.
        problem: as written in answers, if it failed.
        worker: who holds it.
        created_ms, started_ms, updated_ms, finished_ms: since 1970, UTC.
        attempts: how often it was taken since it last got a window further.
    """

    id: str = ""
    state: JobState = "queued"
    total: int = 0
    done: int = 0
    problem: Mapping[str, Any] | None = None
    worker: str | None = None
    created_ms: int = 0
    started_ms: int | None = None
    updated_ms: int = 0
    finished_ms: int | None = None
    attempts: int = 0


@dataclass(frozen=True)
class JobBook:
    """The jobs of a store.

    Attributes:
        database: of the store.
        lease_ms: how long a worker may be silent before another one takes its job.
    """

    database: Database
    lease_ms: int = LEASE_MS

    def add(self, new: NewJob) -> Job:
        """Queue a job.

        Raises:
            NotFound: if there is no such slide.
            Conflict: if the slide has a job that is not finished.
        """
        now = now_ms()
        with self.database.write() as connection:
            held = select(slides.c.id).where(slides.c.id == new.slide_id).with_for_update()
            if connection.execute(held).one_or_none() is None:
                raise NotFound("there is no slide of this id")
            if connection.execute(unfinished(new.slide_id)).first() is not None:
                raise Conflict("the slide has a job that is not finished; wait for it, or cancel it")
            query = insert(jobs).values(_row(new) | {"created_ms": now, "updated_ms": now}).returning(*jobs.c)
            return _job(connection.execute(query).one())

    def get(self, job_id: str) -> Job:
        """One job.

        Raises:
            NotFound: if there is none of this id.
        """
        with self.database.read() as connection:
            return _one(connection, jobs.c.id == job_id)

    def of_slide(self, slide_id: str) -> list[Job]:
        """The jobs of a slide, newest first."""
        query = select(jobs).where(jobs.c.slide_id == slide_id).order_by(jobs.c.created_ms.desc(), jobs.c.id)
        with self.database.read() as connection:
            return [_job(row) for row in connection.execute(query)]

    def claim(self, worker: str) -> Job | None:
        """Take a job that waits, or whose worker has fallen silent; None if there is none.

        What has begun goes on first; then owners take turns, whoever waited longest for one, each with the oldest job.

        Args:
            worker: a name of this worker that no other one has, now or later.
        """
        now = now_ms()
        lost = and_(jobs.c.state == "running", jobs.c.lease_ms < now)
        waiting = (
            select(jobs.c.id)
            .join(slides, slides.c.id == jobs.c.slide_id)
            .outerjoin(turns, turns.c.owner == slides.c.owner)
            .where(or_(jobs.c.state == "queued", lost))
            .order_by(jobs.c.started_ms.is_(None), func.coalesce(turns.c.began_ms, 0), jobs.c.created_ms, jobs.c.id)
            .limit(1)
            .with_for_update(skip_locked=True, of=jobs)
        )
        with self.database.write() as connection:
            job_id = connection.execute(waiting).scalar_one_or_none()
            if job_id is None:
                return None
            taken = {"state": "running", "worker": worker, "lease_ms": now + self.lease_ms, "updated_ms": now}
            taken |= {"attempts": jobs.c.attempts + 1}
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(taken))
            self._take_turn(connection, job_id, now)
            first = and_(jobs.c.id == job_id, jobs.c.started_ms.is_(None))
            connection.execute(update(jobs).where(first).values(started_ms=now))
            return _one(connection, jobs.c.id == job_id)

    def take_back(self, is_dead: Callable[[str], bool]) -> int:
        """Queue the jobs again whose workers are known to be dead, without waiting for their leases; how many.

        Args:
            is_dead: asked for each worker that holds a job.
        """
        held = select(jobs.c.id, jobs.c.worker).where(jobs.c.state == "running")
        with self.database.read() as connection:
            lost = [row for row in connection.execute(held) if is_dead(row.worker)]
        taken = 0
        for row in lost:
            with suppress(Conflict):
                self.release(row.id, row.worker)
                taken += 1
        return taken

    def advance(self, job_id: str, worker: str, done: int, total: int) -> None:
        """Say how far a job is, and keep it.

        Raises:
            Conflict: if it was cancelled, deleted, or taken over by another worker: stop.
        """
        now = now_ms()
        changed = {"done": done, "total": total, "lease_ms": now + self.lease_ms, "updated_ms": now}
        attempts = {"attempts": case((jobs.c.done < done, 0), else_=jobs.c.attempts)}
        self._change(_held(job_id, worker), changed | attempts, "the job is no longer this worker's")

    def finish(self, job_id: str, worker: str, problem: Mapping[str, Any] | None = None) -> None:
        """Close a job: done, or failed with a problem.

        Raises:
            Conflict: if it was cancelled, deleted, or taken over by another worker.
        """
        ended = _ended("failed" if problem else "done") | {"problem": dict(problem) if problem else None}
        self._change(_held(job_id, worker), ended, "the job is no longer this worker's")

    def release(self, job_id: str, worker: str) -> None:
        """Put a job back, for another worker to go on with at once (this one is stopping).

        Raises:
            Conflict: if it is no longer this worker's.
        """
        back = {"state": "queued", "worker": None, "lease_ms": None, "updated_ms": now_ms()}
        self._change(_held(job_id, worker), back, "the job is no longer this worker's")

    def cancel(self, job_id: str) -> Job:
        """Cancel a job; its worker notices at its next step, and what was kept stays. A finished one stays as it is.

        Raises:
            NotFound: if there is none of this id.
        """
        with self.database.write() as connection:
            still_open = and_(jobs.c.id == job_id, jobs.c.state.in_(OPEN))
            connection.execute(update(jobs).where(still_open).values(_ended("cancelled")))
            return _one(connection, jobs.c.id == job_id)

    def _take_turn(self, connection: Connection, job_id: str, now: int) -> None:
        insert_or = sqlite.insert if self.database.is_sqlite else postgresql.insert
        owner = select(slides.c.owner, literal(now)).join(jobs).where(jobs.c.id == job_id)
        own = insert_or(turns).from_select(["owner", "began_ms"], owner)
        connection.execute(own.on_conflict_do_update(index_elements=["owner"], set_={"began_ms": now}))

    def _change(self, which: ColumnElement[bool], values: Mapping[str, Any], otherwise: str) -> None:
        with self.database.write() as connection:
            if connection.execute(update(jobs).where(which).values(values)).rowcount != 1:
                raise Conflict(otherwise)


def unfinished(slide_id: str) -> Select[tuple[str]]:
    """The jobs of a slide that wait or run."""
    return select(jobs.c.id).where(jobs.c.slide_id == slide_id, jobs.c.state.in_(OPEN))


def _held(job_id: str, worker: str) -> ColumnElement[bool]:
    return and_(jobs.c.id == job_id, jobs.c.worker == worker, jobs.c.state == "running")


def _ended(state: JobState) -> dict[str, Any]:
    now = now_ms()
    return {"state": state, "worker": None, "lease_ms": None, "updated_ms": now, "finished_ms": now}


def _one(connection: Connection, which: ColumnElement[bool]) -> Job:
    row = connection.execute(select(jobs).where(which)).one_or_none()
    if row is None:
        raise NotFound("there is no job of this id")
    return _job(row)


def _row(new: NewJob) -> dict[str, Any]:
    model = {"model_name": new.model_name, "model_version": new.model_version, "model_sha256": new.model_sha256}
    region = dict(zip(("x0", "y0", "x1", "y1"), new.region, strict=True))
    own = {"id": new_id(), "slide_id": new.slide_id, "state": "queued", "profile": new.profile, "total": 0, "done": 0}
    mpp = {"mpp_x": new.mpp.x, "mpp_y": new.mpp.y, "mpp_source": new.mpp.source, "mpp_conflict": new.mpp.conflict}
    return own | model | region | mpp


def _job(row: Row[Any]) -> Job:
    mpp = Mpp(row.mpp_x, row.mpp_y, row.mpp_source, bool(row.mpp_conflict))
    names = row.model_name, row.model_version, row.model_sha256
    new = NewJob(row.slide_id, Box(row.x0, row.y0, row.x1, row.y1), row.profile, *names, mpp)
    return Job(
        *(new.slide_id, new.region, new.profile, new.model_name, new.model_version, new.model_sha256, new.mpp),
        *(row.id, row.state, row.total, row.done, row.problem, row.worker),
        *(row.created_ms, row.started_ms, row.updated_ms, row.finished_ms, row.attempts),
    )
