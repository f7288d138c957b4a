"""What the store promises, on both databases."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import func, select

from app.nuclei.errors import Conflict, MissingExtra, NotFound, NotReady, StorageFull
from app.nuclei.types import Mpp
from app.slides import database as database_module
from app.slides.database import Database
from app.slides.jobbook import JobBook, NewJob
from app.slides.places import Box, Spot
from app.slides.reading import list_tiles, tile_details, tile_nuclei, totals
from app.slides.records import NewSlide
from app.slides.schema import jobs, payloads, slides, tiles
from app.slides.store import Store
from tests.slides.kept import MODEL, SLIDE, WHOLE, assert_same_nuclei, cut_up, found, tile_at


def rows(database: Database) -> dict[str, int]:
    with database.read() as connection:
        count = select(func.count())
        return {t.name: connection.execute(count.select_from(t)).scalar_one() for t in (slides, tiles, payloads, jobs)}


def test_a_slide_comes_back_as_it_was_kept(store):
    new = NewSlide(9, 7, Mpp(0.25, 0.26, "file", True), "rooted", "a/b.svs", "aperio", 12, 34, "c" * 64)
    slide = store.add_slide(new)
    assert store.slide(slide.id) == slide
    assert NewSlide(*(getattr(slide, name) for name in NewSlide.__slots__)) == new


def test_a_tile_comes_back_to_the_bit(store):
    slide, tile = store.add_slide(SLIDE), tile_at(0, 0, 300, 200)
    kept = store.put_tile(slide.id, tile)
    back = tile_nuclei(store.database, kept.tile_id)
    assert_same_nuclei(back.nuclei, tile.nuclei)
    assert (back.tile.place, back.tile.content_sha256) == (tile.place, tile.content_sha256)
    qc = {"verdict": "warn", "codes": ["mpp_assumed"], "measures": {"tissue_fraction": 0.5}}
    assert tile_details(store.database, kept.tile_id) == (qc, {"request_id": "0,0"})


def test_the_same_content_again_changes_nothing(store):
    slide, tile = store.add_slide(SLIDE), tile_at(0, 0, 300, 200)
    first = store.put_tile(slide.id, tile)
    before = store.slide(slide.id), totals(store.database, slide.id), rows(store.database)
    again = store.put_tile(slide.id, tile)
    assert (again.tile_id, first.created, again.created) == (first.tile_id, True, False)
    assert (store.slide(slide.id), totals(store.database, slide.id), rows(store.database)) == before


@pytest.mark.parametrize("order", [(40, 10), (10, 40)], ids=["more", "less"])
def test_the_same_content_answers_for_all_that_was_asked_of_it(store, order):
    slide, other = store.add_slide(SLIDE), store.add_slide(SLIDE)
    neighbour = tile_at(260, 0, 300, 200, margin=10)
    store.put_tile(slide.id, neighbour)
    created = [store.put_tile(slide.id, tile_at(0, 0, 300, 200, margin=margin)).created for margin in order]
    assert created == [True, order[1] < order[0]]
    for tile in (neighbour, tile_at(0, 0, 300, 200, margin=10)):
        store.put_tile(other.id, tile)
    assert totals(store.database, slide.id) == totals(store.database, other.id)
    assert store.used_bytes() == 2 * store.slide(slide.id).tile_bytes == 2 * store.slide(other.id).tile_bytes
    assert len(list_tiles(store.database, slide.id)) == 2


def test_a_tile_is_found_again_if_it_answers_for_enough(store):
    slide = store.add_slide(SLIDE)
    tile = tile_at(300, 200, 200, 200, margin=20)
    kept = store.put_tile(slide.id, tile)
    found = {
        margin: store.find_tile(slide, Spot(300, 200, margin), tile.content_sha256, MODEL) for margin in (0, 20, 30)
    }
    assert found == {0: None, 20: kept.tile_id, 30: kept.tile_id}
    assert store.find_tile(slide, Spot(301, 200, 20), tile.content_sha256, MODEL) is None


def test_a_tile_analysed_at_another_scale_is_refused(store):
    slide = store.add_slide(SLIDE)
    with pytest.raises(Conflict, match="mpp has changed"):
        store.put_tile(slide.id, tile_at(0, 0, 300, 200, mpp=Mpp(0.25, 0.25)))
    assert (store.slide(slide.id).model, store.used_bytes()) == (None, 0)
    assert store.put_tile(slide.id, tile_at(0, 0, 300, 200, mpp=Mpp(0.5, 0.5, "file"))).created


def test_a_scale_stays_while_a_job_works_at_it(store):
    slide, book = store.add_slide(SLIDE), JobBook(store.database)
    job = book.add(NewJob(slide.id, Box(0, 0, 600, 480), "fast", *MODEL[:3], Mpp(0.5, 0.5)))
    with pytest.raises(Conflict, match="job at another mpp that is not finished"):
        store.set_mpp(slide.id, Mpp(0.25, 0.25))
    assert store.set_mpp(slide.id, Mpp(0.5, 0.5, "file")).mpp == Mpp(0.5, 0.5, "file")
    book.cancel(job.id)
    assert store.set_mpp(slide.id, Mpp(0.25, 0.25)).mpp == Mpp(0.25, 0.25)


def test_a_slide_holds_one_model_and_one_setting(store):
    slide = store.add_slide(SLIDE)
    store.put_tile(slide.id, tile_at(0, 0, 300, 200))
    assert store.slide(slide.id).model == MODEL
    for other in (MODEL._replace(sha256="f" * 64), MODEL._replace(config_sha256="f" * 64, profile="accurate")):
        with pytest.raises(Conflict, match=r"ink@1, profile fast"):
            store.put_tile(slide.id, tile_at(300, 0, 300, 200, model=other))
    assert len(list_tiles(store.database, slide.id)) == 1


def test_totals_are_what_the_tiles_hold(store):
    slide = store.add_slide(SLIDE)
    for tile in cut_up(200, overlap=32):
        store.put_tile(slide.id, tile)
    kept = totals(store.database, slide.id)
    assert (kept.counted, kept.area) == (len(found(WHOLE)), 600 * 480)
    assert (kept.tiles, kept.verdicts, kept.codes) == (12, {"warn": 12}, {"mpp_assumed": 12})
    assert kept.counted == sum(kept.counts)


def test_an_empty_slide_adds_up_to_nothing(store):
    kept = totals(store.database, store.add_slide(SLIDE).id)
    assert (kept.tiles, kept.counted, kept.area, kept.verdicts) == (0, 0, 0.0, {})


def test_a_tile_without_nuclei_is_covered_ground(store):
    slide, tile = store.add_slide(SLIDE), tile_at(0, 0, 4, 4)
    assert len(tile.nuclei) == 0
    store.put_tile(slide.id, tile)
    assert (totals(store.database, slide.id).counted, totals(store.database, slide.id).area) == (0, 16.0)


def test_what_does_not_exist_is_not_found(store):
    database = store.database
    for ask in (store.slide, store.delete_slide, lambda i: store.put_tile(i, tile_at(0, 0, 9, 9))):
        with pytest.raises(NotFound):
            ask("0" * 32)
    for look in (totals, list_tiles):
        with pytest.raises(NotFound):
            look(database, "0" * 32)


def test_slides_are_listed_newest_first_page_by_page(store):
    ids = [store.add_slide(SLIDE).id for _ in range(5)]
    first = store.list_slides(limit=3)
    rest = store.list_slides(limit=3, after=first[-1].id)
    listed = [slide.id for slide in (*first, *rest)]
    assert sorted(listed) == sorted(ids)
    stamps = [slide.created_ms for slide in (*first, *rest)]
    assert stamps == sorted(stamps, reverse=True)


def test_a_deleted_slide_leaves_no_row(store):
    other, slide = store.add_slide(SLIDE), store.add_slide(SLIDE)
    for each in (other, slide):
        store.put_tile(each.id, tile_at(0, 0, 300, 200))
    store.delete_slide(slide.id)
    assert rows(store.database) == {"slides": 1, "tiles": 1, "payloads": 1, "jobs": 0}
    with pytest.raises(NotFound):
        store.slide(slide.id)


def test_sqlite_gives_the_room_of_a_deleted_slide_back(tmp_path):
    store = Store(Database.open(f"sqlite:///{tmp_path / 'small.sqlite'}"))
    slide = store.add_slide(SLIDE)
    for tile in cut_up(60):
        store.put_tile(slide.id, tile)
    store.delete_slide(slide.id)
    with store.database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA freelist_count").scalar_one() == 0
    store.database.close()


def test_a_scale_is_given_once_there_is_one_and_kept_once_there_are_results(store):
    slide = store.add_slide(replace(SLIDE, mpp=None))
    assert store.set_mpp(slide.id, Mpp(0.5, 0.5)).mpp == Mpp(0.5, 0.5)
    store.put_tile(slide.id, tile_at(0, 0, 300, 200))
    assert store.set_mpp(slide.id, Mpp(0.5, 0.5)).mpp == Mpp(0.5, 0.5)
    with pytest.raises(Conflict):
        store.set_mpp(slide.id, Mpp(0.25, 0.25))


def kept_until_full(store: Store, slide_id: str, side: int) -> int:
    for number, tile in enumerate(cut_up(side)):
        try:
            store.put_tile(slide_id, tile)
        except StorageFull:
            return number
    raise AssertionError("there was room for all")


def test_a_full_quota_refuses_a_tile_and_keeps_nothing_of_it(store):
    slide, tight = store.add_slide(SLIDE), Store(store.database, quota_bytes=60_000)
    kept = kept_until_full(tight, slide.id, 60)
    assert 0 < kept == rows(store.database)["tiles"] == rows(store.database)["payloads"]
    assert tight.used_bytes() <= 60_000
    tight.delete_slide(slide.id)
    assert tight.room_bytes() == 60_000


def test_a_full_disk_refuses_a_tile_and_keeps_nothing_of_it(tmp_path):
    store = Store(Database.open(f"sqlite:///{tmp_path / 'small.sqlite'}"))
    slide = store.add_slide(SLIDE)
    with store.database.write() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=60")
    kept = kept_until_full(store, slide.id, 40)
    assert 0 < kept == rows(store.database)["tiles"] == rows(store.database)["payloads"]
    store.database.close()


def test_several_writers_on_one_slide_take_turns(store):
    slide, pieces = store.add_slide(SLIDE), cut_up(150, overlap=32)
    with ThreadPoolExecutor(4) as pool:  # everything twice, all at once
        kept = list(pool.map(lambda tile: store.put_tile(slide.id, tile), [*pieces, *reversed(pieces)]))
    assert sum(each.created for each in kept) == len(pieces) == len({each.tile_id for each in kept})
    assert totals(store.database, slide.id).counted == len(found(WHOLE))


def test_two_models_race_for_a_slide_and_one_wins(store):
    slide, barrier, lost = store.add_slide(SLIDE), threading.Barrier(2), []

    def send(number: int) -> None:
        barrier.wait()
        try:
            store.put_tile(slide.id, tile_at(300 * number, 0, 300, 200, model=MODEL._replace(sha256=f"{number}" * 64)))
        except Conflict:
            lost.append(number)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(send, range(2)))
    assert len(lost) == 1
    assert store.slide(slide.id).model.sha256 == f"{1 - lost[0]}" * 64


def test_a_store_that_cannot_be_reached_is_not_ready(postgres_server):
    with pytest.raises(NotReady):
        Database.open(postgres_server.rsplit(":", 1)[0] + ":1/nothing")


def test_without_its_driver_postgresql_names_the_extra(monkeypatch):
    monkeypatch.setattr(database_module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"karyon\[postgres\]"):
        Database.open("postgresql://localhost/karyon")


def test_another_kind_of_database_is_refused():
    with pytest.raises(ValueError, match="sqlite"):
        Database.open("mysql://localhost/karyon")
