"""How are SQLite and PostgreSQL made to keep the same promises?

A commit that returned is on the disk (SQLite: WAL and synchronous=FULL). A writer holds its lock from the beginning, so
two writers take turns instead of failing; a reader sees one moment. A full disk, a busy or a vanished database become
refusals.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self, cast

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError

from app.nuclei.errors import MissingExtra, NotReady, Overloaded, StorageFull

BUSY_S = 30  # how long a writer waits for another one
MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 0x4B6172796F6E  # "Karyon": replicas that start together take turns
_SQLITE_FULL, _SQLITE_BUSY = 13, 5
_PG_FULL = {"53100", "53200"}
_PG_BUSY = {"40001", "40P01", "53300", "55P03", "57014"}


@dataclass(frozen=True)
class Database:
    """An opened, migrated database.

    Attributes:
        engine: SQLAlchemy's.
    """

    engine: Engine
    _turn: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(cls, url: str | URL) -> Self:
        """Connect and bring the tables up to date.

        Args:
            url: `sqlite:///path/to/file` (its folder must exist) or `postgresql://user:password@host/name`.

        Raises:
            MissingExtra: if the driver of PostgreSQL is not installed.
            NotReady: if the database cannot be reached.
            ValueError: if it is another kind of database.
        """
        database = cls(_engine(url))
        try:
            with _refusing():
                database.migrate()
        except BaseException:
            database.close()
            raise
        return database

    @property
    def is_sqlite(self) -> bool:
        """Whether it is the embedded one."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one moment and changes nothing."""
        options = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ", "karyon_bytes": True}
        with _refusing(), self.engine.connect() as connection:
            yield connection.execution_options(**options)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is committed at the end, or leaves nothing behind.

        Raises:
            StorageFull: if the disk is full.
            Overloaded: if another writer does not finish in time.
            NotReady: if the database is gone.
        """
        with _refusing():
            if not self.is_sqlite:
                with self.engine.begin() as connection:
                    yield connection
                return
            # Threads queue here, fairly; SQLite's own waiting is a lottery, and is left for other processes.
            with self._turn, self.engine.connect() as plain:
                connection = plain.execution_options(karyon_begin="BEGIN IMMEDIATE")
                with connection.begin():
                    yield connection

    def migrate(self) -> None:
        """Take every step that is missing, all of them or none."""
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        with self.write() as connection:
            if not self.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def shrink(self) -> None:
        """After a deletion: let SQLite's file give its room back; PostgreSQL does so by itself."""
        if not self.is_sqlite:
            return
        with _refusing(), self._turn:
            connection = self.engine.raw_connection()
            try:
                # A script, as it is stepped to its end: the pragma frees one page a step.
                cast(sqlite3.Connection, connection.driver_connection).executescript("PRAGMA incremental_vacuum")
            except sqlite3.OperationalError:  # another process writes: the next deletion shrinks the file
                return
            finally:
                connection.close()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def in_file(path: Path) -> URL:
    """Where SQLite in a file is found, whatever characters its path has."""
    return URL.create("sqlite", database=str(path))


def _engine(url: str | URL) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(parsed, connect_args={"timeout": BUSY_S})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if parsed.get_backend_name() != "postgresql":
        raise ValueError("the store is kept in sqlite:///... or postgresql://...")
    if find_spec("psycopg") is None:
        raise MissingExtra("a store on PostgreSQL needs the extra postgres: pip install karyon[postgres]")
    engine = create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    event.listen(engine, "before_cursor_execute", _take_bytes)
    return engine


def _take_bytes(connection: Connection, cursor: Any, *_: object) -> None:
    """Rows of our own tables come as bytes: as text each byte of a payload would travel as two digits."""
    if connection.get_execution_options().get("karyon_bytes"):
        cursor.format = type(cursor.format)(1)  # psycopg's pq.Format.BINARY


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # transactions are begun by `_begin_sqlite`, not by the driver's guess
    for pragma in (
        "auto_vacuum=INCREMENTAL",  # before WAL creates the file; deleted slides give their room back
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "temp_store=MEMORY",
    ):
        _patiently(connection, f"PRAGMA {pragma}")


def _patiently(connection: sqlite3.Connection, statement: str) -> None:
    """Run it, waiting for others as long as a writer does.

    Two connections that turn a new file to WAL at the same moment would wait for each other, so SQLite says at once
    that it is busy and leaves the waiting to us (https://sqlite.org/c3ref/busy_handler.html).
    """
    until = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute(statement).close()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != _SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("karyon_begin", "BEGIN"))


@contextmanager
def _refusing() -> Iterator[None]:
    """What the driver says, as refusals; SQL and values stay out of messages."""
    try:
        yield
    except DBAPIError as error:
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        state = getattr(error.orig, "sqlstate", None) or ""
        if code == _SQLITE_FULL or state in _PG_FULL:
            raise StorageFull("the disk of the store is full; nothing of this was kept") from None
        if code == _SQLITE_BUSY or state in _PG_BUSY:
            raise Overloaded("the store is busy; try again", retry_after_s=5) from None
        if error.connection_invalidated or state[:2] in ("08", "57") or (not state and not self_made(error)):
            raise NotReady("the store cannot be reached") from error
        raise


def self_made(error: DBAPIError) -> bool:
    """Whether SQLite itself raised it: an embedded database is never out of reach."""
    return hasattr(error.orig, "sqlite_errorcode") or type(error.orig).__module__.startswith("sqlite3")
