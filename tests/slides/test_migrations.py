"""The steps lead to the tables that the code speaks of."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from app.slides.database import MIGRATIONS, Database, in_file
from app.slides.schema import metadata
from app.slides.store import Store
from tests.slides.kept import SLIDE


def test_the_migrated_tables_are_those_of_the_schema(database):
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_a_store_that_is_opened_again_keeps_what_it_has(url, store):
    slide = store.add_slide(SLIDE)
    again = Database.open(url)
    assert Store(again).slide(slide.id) == slide
    again.close()


def test_a_file_may_have_any_name(tmp_path):
    folder = tmp_path / "what? 100% & #1"
    folder.mkdir()
    Database.open(in_file(folder / "a?b=c.sqlite")).close()
    assert [path.name for path in folder.iterdir()] == ["a?b=c.sqlite"]


def test_replicas_that_start_together_take_turns(url):
    with ThreadPoolExecutor(3) as pool:
        opened = list(pool.map(lambda _: Database.open(url), range(3)))
    with opened[0].engine.connect() as connection:
        head = MigrationContext.configure(connection).get_current_heads()
    assert head == tuple(ScriptDirectory(str(MIGRATIONS)).get_heads())
    for each in opened:
        each.close()


def test_a_new_file_that_somebody_writes_is_waited_for(tmp_path):
    file = tmp_path / "new.sqlite"
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:
        other.execute("CREATE TABLE theirs (id INTEGER)")
        other.execute("BEGIN IMMEDIATE")  # who wants to turn the file to WAL meanwhile is told at once that it is busy
        ends = threading.Timer(0.3, other.execute, ["ROLLBACK"])
        ends.start()
        opened = Database.open(f"sqlite:///{file}")
        ends.join()
    with opened.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    opened.close()
