"""How is a whole store put aside while it works, and how does it come back, even to the other kind of database?

A backup is a folder: `store.sqlite`, one moment of all tables whatever database they came from, and `slides/` with the
uploaded files. It is complete or not there: it is made under another name and renamed at the end. It can be restored
into an empty store on SQLite or PostgreSQL, so it is also the way from one to the other.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

from sqlalchemy import Connection, Table, delete, func, insert, select, text

from app.nuclei.errors import Conflict, NotFound, StoreDamaged
from app.slides.database import Database, in_file
from app.slides.library import Library
from app.slides.schema import densities, jobs, payloads, slides, tiles

NAME = "store.sqlite"
_TABLES: tuple[Table, ...] = (slides, jobs, tiles, payloads, densities)  # parents before children
_BATCH = 64


def backup(library: Library, to: Path) -> None:
    """Put the whole store aside; it goes on working.

    Args:
        library: rows and files.
        to: folder that does not exist yet.

    Raises:
        Conflict: if `to` exists.
    """
    if to.exists():
        raise Conflict("the backup's folder exists already")
    partial = to.with_name(f"{to.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    copy = Database.open(in_file(partial / NAME))
    try:
        with library.store.database.read() as source, copy.write() as target:
            _copy_rows(source, target)
        _copy_files(library, copy, partial / "slides")
    finally:
        copy.close()
    _settle_file(partial / NAME)
    os.sync()
    partial.rename(to)


def restore(library: Library, source: Path) -> None:
    """Fill an empty store from a backup.

    Args:
        library: without slides.
        source: folder that `backup` made.

    Raises:
        NotFound: if there is no backup.
        StoreDamaged: if it is incomplete or damaged.
        Conflict: if the store is not empty.
    """
    _check(source)
    with tempfile.TemporaryDirectory() as scratch:  # a backup may lie on a medium that nobody can write to
        shutil.copyfile(source / NAME, Path(scratch) / NAME)
        copy = Database.open(in_file(Path(scratch) / NAME))  # one of an older version is brought up to date
        try:
            _fill(library, copy, source)
        finally:
            copy.close()


def _fill(library: Library, copy: Database, source: Path) -> None:
    with copy.read() as rows, library.store.database.write() as target:
        if target.execute(select(func.count()).select_from(slides)).scalar_one():
            raise Conflict("the store is not empty")
        for slide_id, name in _uploaded(rows):  # files before rows, as ever
            home = library.files.path_of(slide_id, name)
            home.parent.mkdir(parents=True, exist_ok=True)
            _copy_file(source / "slides" / slide_id / name, home)
        _copy_rows(rows, target)
        _count_on(target)


def _copy_rows(source: Connection, target: Connection) -> None:
    for table in _TABLES:
        rows = source.execution_options(yield_per=_BATCH).execute(select(table).order_by(*table.primary_key.columns))
        for batch in rows.mappings().partitions(_BATCH):
            target.execute(insert(table), [dict(row) for row in batch])


def _count_on(target: Connection) -> None:
    """PostgreSQL hands out ids from a sequence, which explicit ids do not move."""
    if target.dialect.name == "postgresql":
        largest = "(SELECT coalesce(max(id), 0) + 1 FROM tiles)"
        target.execute(text(f"SELECT setval(pg_get_serial_sequence('tiles', 'id'), {largest}, false)"))


def _copy_files(library: Library, copy: Database, to: Path) -> None:
    with copy.write() as connection:
        for slide_id, name in _uploaded(connection):
            (to / slide_id).mkdir(parents=True)
            try:
                _copy_file(library.files.path_of(slide_id, name), to / slide_id / name)
            except NotFound:  # deleted while the backup was made: then it is deleted there as well
                connection.execute(delete(slides).where(slides.c.id == slide_id))
                shutil.rmtree(to / slide_id)


def _uploaded(connection: Connection) -> list[tuple[str, str]]:
    query = select(slides.c.id, slides.c.path).where(slides.c.origin == "upload")
    return [(str(row.id), str(row.path)) for row in connection.execute(query)]


def _copy_file(source: Path, to: Path) -> None:
    try:
        shutil.copy2(source, to)  # with its time of change, by which the slide is recognised
    except FileNotFoundError:
        raise NotFound("the slide's file is no longer there") from None


def _settle_file(path: Path) -> None:
    """Fold the write-ahead log in, so that one file is all there is."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=DELETE").fetchall()
    connection.close()


def _check(source: Path) -> None:
    file = source / NAME
    if not file.is_file():
        raise NotFound("there is no backup in this folder")
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        sound = connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        sound = sound and connection.execute("PRAGMA foreign_key_check").fetchone() is None
        uploads = connection.execute("SELECT id, path, file_bytes FROM slides WHERE origin = 'upload'").fetchall()
    except sqlite3.DatabaseError as error:
        raise StoreDamaged("the backup is damaged") from error
    finally:
        connection.close()
    if not sound or any(_size(source / "slides" / each / name) != size for each, name, size in uploads):
        raise StoreDamaged("the backup is damaged or incomplete")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
