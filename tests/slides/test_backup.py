"""A store put aside and brought back, also from one database to the other."""

from __future__ import annotations

import threading

import pytest

from app.nuclei.errors import Conflict, NotFound, StoreDamaged
from app.slides.backup import NAME, backup, restore
from app.slides.database import Database
from app.slides.jobbook import JobBook, NewJob
from app.slides.library import Library
from app.slides.places import Box
from app.slides.reading import totals, walk
from app.slides.store import Store
from app.slides.uploads import Files
from tests.slides.kept import SLIDE, assert_same_nuclei, cut_up, tile_at


@pytest.fixture
def other(tmp_path):
    database = Database.open(f"sqlite:///{tmp_path / 'other.sqlite'}")
    yield Library(Store(database), Files(tmp_path / "other files", 2**20))
    database.close()


def fill(library: Library, png: bytes) -> tuple[str, str]:
    """A slide with tiles and a job, and an uploaded one."""
    slide = library.add_blank(SLIDE.width, SLIDE.height, SLIDE.mpp)
    for tile in cut_up(200, margin=32):
        library.store.put_tile(slide.id, tile)
    JobBook(library.store.database).add(NewJob(slide.id, Box(0, 0, 9, 9), None, "ink", "1", "a" * 64, SLIDE.mpp))
    with library.files.begin(".png") as upload:
        upload.write(png)
        return slide.id, library.add_upload(upload).id


def check_same(ours: Library, theirs: Library, with_tiles: str, uploaded: str) -> None:
    assert ours.store.list_slides() == theirs.store.list_slides()
    assert totals(ours.store.database, with_tiles) == totals(theirs.store.database, with_tiles)
    steps = zip(*(walk(each.store.database, with_tiles) for each in (ours, theirs)), strict=True)
    for mine, other in steps:
        assert mine.tile == other.tile
        assert_same_nuclei(mine.nuclei, other.nuclei)
    books = [JobBook(each.store.database).of_slide(with_tiles) for each in (ours, theirs)]
    assert books[0] == books[1]
    with theirs.open(theirs.store.slide(uploaded)) as source:
        assert source.read(0, 0, 0, 4, 4).shape == (4, 4, 3)


def test_a_restored_store_is_the_one_that_was_put_aside(library, other, tmp_path, png):
    ids = fill(library, png)
    backup(library, tmp_path / "aside")
    restore(other, tmp_path / "aside")
    check_same(library, other, *ids)
    again = other.store.put_tile(ids[0], tile_at(0, 0, 200, 200, 32))
    assert not again.created


def test_a_store_moves_from_sqlite_to_either_database_and_goes_on(sqlite_library, store, tmp_path, png):
    ids = fill(sqlite_library, png)
    backup(sqlite_library, tmp_path / "aside")
    moved = Library(store, Files(tmp_path / "moved", 2**20))
    restore(moved, tmp_path / "aside")
    check_same(sqlite_library, moved, *ids)
    known = {each.tile.id for each in walk(store.database, ids[0])}
    assert store.put_tile(ids[0], tile_at(7, 7, 90, 90)).tile_id not in known


def test_a_backup_is_one_moment_of_a_store_that_goes_on(library, other, tmp_path, png):
    slide, _ = fill(library, png)
    writer = threading.Thread(target=lambda: [library.store.put_tile(slide, tile) for tile in cut_up(75)])
    writer.start()
    backup(library, tmp_path / "aside")
    writer.join()
    restore(other, tmp_path / "aside")
    kept = totals(other.store.database, slide)
    assert kept.counted == sum(len(each.nuclei) for each in walk(other.store.database, slide))
    assert not (tmp_path / "aside.partial").exists()


def test_a_backup_overwrites_nothing(sqlite_library, tmp_path):
    with pytest.raises(Conflict):
        backup(sqlite_library, tmp_path / "root")


def test_a_store_with_slides_is_not_overwritten(sqlite_library, other, tmp_path, png):
    fill(sqlite_library, png)
    backup(sqlite_library, tmp_path / "aside")
    other.add_blank(9, 9, None)
    with pytest.raises(Conflict):
        restore(other, tmp_path / "aside")
    assert len(other.store.list_slides()) == 1


@pytest.mark.parametrize("harm", ["page", "cut", "file gone"])
def test_a_damaged_backup_is_not_restored(sqlite_library, other, tmp_path, png, harm):
    _, uploaded = fill(sqlite_library, png)
    backup(sqlite_library, tmp_path / "aside")
    kept = tmp_path / "aside" / NAME
    data = bytearray(kept.read_bytes())
    if harm == "file gone":
        (tmp_path / "aside" / "slides" / uploaded / "slide.png").unlink()
    else:
        data[8192:12288] = bytes(4096)
        kept.write_bytes(data[: len(data) // 2] if harm == "cut" else data)
    with pytest.raises(StoreDamaged):
        restore(other, tmp_path / "aside")
    assert other.store.list_slides() == []


def test_no_backup_is_not_found(other, tmp_path):
    with pytest.raises(NotFound):
        restore(other, tmp_path / "nowhere")
