"""A writer that is killed at any moment leaves all it acknowledged, and nothing by halves."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from sqlalchemy import select

from app.slides.columns import Packed, unpack
from app.slides.database import Database
from app.slides.reading import list_tiles, totals
from app.slides.records import Tile
from app.slides.schema import payloads
from app.slides.seams import CUT, ELSEWHERE
from app.slides.store import Store
from tests.slides.kept import SLIDE, WHOLE, cut_up, found

WRITER = Path(__file__).with_name("writer.py")
KILLS = 10


def acknowledged(writers: subprocess.Popen[str], wait_s: float) -> dict[int, str]:
    """Start a writer, kill it after a while, and return what it said it had kept: tile ids and digests."""
    writers.stdin.write("go\n")
    writers.stdin.flush()
    kept, seen, pid = {}, set(), None
    while (line := writers.stdout.readline().split()) != ["ended"]:
        assert line, "the process that forks the writers has ended"
        seen.add(line[0])
        if line[0] == "pid":
            pid = int(line[1])
        elif line[0] == "kept":
            kept[int(line[1])] = line[2]
        if seen >= {"pid", "writing"} and pid is not None:  # whichever of both came first
            time.sleep(wait_s)
            with suppress(ProcessLookupError):  # it was done before
                os.kill(pid, signal.SIGKILL)
            pid = None
    return kept


def check_whole(database: Database, tile: Tile) -> None:
    """Row and payload agree, and the payload decodes."""
    with database.read() as connection:
        row = connection.execute(select(payloads).where(payloads.c.tile_id == tile.id)).one()
    nuclei, flags = unpack(Packed(row.nuclei, row.rings)), np.frombuffer(row.flags, np.uint8)
    counts = (flags & ELSEWHERE) == 0
    assert len(nuclei) == len(flags) == tile.found
    assert (counts.sum(), (counts & ((flags & CUT) > 0)).sum()) == (tile.counted, tile.cut)


def test_a_killed_writer_loses_nothing_that_it_acknowledged(url, database):
    store = Store(database)
    slide, rng, said = store.add_slide(SLIDE).id, random.Random(7), {}
    command = [sys.executable, WRITER, url, slide]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writers:
        for _ in range(KILLS):
            said |= acknowledged(writers, rng.uniform(0.01, 0.3))
            kept = {tile.id: tile.content_sha256 for tile in list_tiles(database, slide)}
            assert said.items() <= kept.items()
            with database.read() as connection:
                assert set(connection.execute(select(payloads.c.tile_id)).scalars()) == kept.keys()
        writers.stdin.close()
    for tile in list_tiles(database, slide):
        check_whole(database, tile)
    assert len(said) > 0
    for tile in cut_up(64, overlap=24):  # and whoever goes on gets what an undisturbed writer would have got
        store.put_tile(slide, tile)
    assert totals(database, slide).counted == len(found(WHOLE))
    if database.is_sqlite:
        with database.read() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
            assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
