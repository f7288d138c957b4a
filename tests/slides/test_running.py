"""A slide analysed window by window has the nuclei of the slide analysed as one image."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest

from app.nuclei.errors import Abandoned, Conflict, InferenceFailed, NotFound
from app.nuclei.segmenter import Segmenter
from app.nuclei.separation import SeparatorFault
from app.nuclei.types import Mpp
from app.slides import running
from app.slides.jobbook import JobBook
from app.slides.places import Box
from app.slides.reading import list_tiles, totals, walk
from app.slides.running import Run
from app.slides.tissue import find_tissue
from tests.drawn import InkEngine, draw_tissue
from tests.slides.jobbing import HALF, analyst, ink_model, new_job, rooted
from tests.slides.kept import by_place

IMAGE = draw_tissue(700, 900, seed=5)


@pytest.fixture
def model(tmp_path, ink):
    return ink_model(tmp_path / "models" / "ink" / "1", ink)


@pytest.fixture
def run(sqlite_library, model, ink):
    """Do a job of a slide, in windows of some size."""

    def work(slide, side=400, region=None, engine=ink, mpp=HALF, **changes):
        job = JobBook(sqlite_library.store.database).add(new_job(slide, model, region, mpp))
        done = Run(sqlite_library, job, analyst(model, engine), side, 2, **changes)
        try:
            done.work()
        finally:
            JobBook(sqlite_library.store.database).cancel(job.id)
        return done

    return work


def nuclei_of(library, slide):
    return np.concatenate([by_place(each.nuclei) for each in walk(library.store.database, slide.id)])


def in_order(rows):
    return rows[np.lexsort(np.round(rows, 6).T)]


@pytest.mark.parametrize("side", [150, 400, 5000])
def test_windows_of_any_size_give_the_nuclei_of_the_whole(sqlite_library, model, ink, run, side):
    slide = rooted(sqlite_library, IMAGE)
    assert run(slide, side).progress.done == len(list_tiles(sqlite_library.store.database, slide.id))
    whole = by_place(Segmenter(model, ink).segment(IMAGE, HALF, "fast").nuclei)
    np.testing.assert_allclose(in_order(nuclei_of(sqlite_library, slide)), in_order(whole), atol=1e-9)
    assert totals(sqlite_library.store.database, slide.id).area == IMAGE.shape[0] * IMAGE.shape[1]


def test_a_slide_at_another_scale_has_its_nuclei_in_its_own_pixels(sqlite_library, run):
    double = cv2.resize(IMAGE, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    fine, coarse = rooted(sqlite_library, double, "fine.tif", Mpp(0.25, 0.25)), rooted(sqlite_library, IMAGE)
    run(fine, mpp=Mpp(0.25, 0.25))
    run(coarse)
    twice, once = in_order(nuclei_of(sqlite_library, fine)), in_order(nuclei_of(sqlite_library, coarse))
    np.testing.assert_allclose(twice / [2, 2, 4], once, atol=1e-6)


@pytest.mark.parametrize("region", [Box(200, 150, 620, 480), Box(40, 30, 860, 670)], ids=["inside", "near the border"])
def test_a_region_has_the_nuclei_whose_centre_it_holds(sqlite_library, run, region):
    slide, other = rooted(sqlite_library, IMAGE), rooted(sqlite_library, IMAGE, "same.tif")
    run(slide, region=region)
    run(other)
    everything = nuclei_of(sqlite_library, other)
    inside = ((everything[:, :2] >= region[:2]) & (everything[:, :2] < region[2:])).all(axis=1)
    assert 0 < inside.sum() < len(everything)
    np.testing.assert_allclose(in_order(nuclei_of(sqlite_library, slide)), in_order(everything[inside]), atol=1e-9)
    run(slide)  # and the rest of it later
    np.testing.assert_allclose(in_order(nuclei_of(sqlite_library, slide)), in_order(everything), atol=1e-9)


def test_glass_is_not_looked_at(sqlite_library, model, ink, run):
    image = np.full((1000, 2000, 3), 243, np.uint8)
    image[300:700, 200:600] = draw_tissue(400, 400)
    slide, engine = rooted(sqlite_library, image), InkEngine()
    run(slide, engine=engine)
    assert sum(count for count, *_ in engine.calls) <= 32  # of 128
    whole = by_place(Segmenter(model, ink).segment(image, HALF, "fast").nuclei)
    np.testing.assert_allclose(in_order(nuclei_of(sqlite_library, slide)), in_order(whole), atol=1e-9)


def test_a_slide_of_glass_says_why_nothing_was_found(sqlite_library, run):
    slide, engine = rooted(sqlite_library, np.full((600, 900, 3), 243, np.uint8)), InkEngine()
    run(slide, engine=engine)
    (tile,) = list_tiles(sqlite_library.store.database, slide.id)
    assert (tile.found, tile.qc_codes, engine.calls) == (0, ("no_tissue",), [])


def test_tissue_is_found_where_it_is(sqlite_library):
    image = np.full((1024, 2048, 3), 243, np.uint8)
    image[512:640, 1024:1280] = draw_tissue(128, 256)
    with sqlite_library.open(rooted(sqlite_library, image)) as source:
        tissue = find_tissue(source, HALF, Box(0, 0, 2048, 1024))
        near = find_tissue(source, HALF, Box(1000, 500, 1400, 700))
    for each in (tissue, near):
        assert each.meets(Box(1030, 520, 1040, 530))
        assert not each.meets(Box(1340, 512, 1400, 640))
    assert not tissue.meets(Box(0, 0, 900, 1024))


def test_a_run_that_goes_on_does_only_what_is_missing(sqlite_library, run):
    slide, engine = rooted(sqlite_library, IMAGE), InkEngine()
    seen = []

    def stop_after_three():
        seen.append(1)
        if len(seen) == 4:
            raise Abandoned

    with pytest.raises(Abandoned):
        run(slide, 150, advance=stop_after_three)
    first = len(list_tiles(sqlite_library.store.database, slide.id))
    again = run(slide, 150, engine=engine)
    assert 3 <= first < again.progress.total == len(list_tiles(sqlite_library.store.database, slide.id))
    before = len(engine.calls)
    assert run(slide, 150, engine=engine).progress.done == again.progress.total
    assert len(engine.calls) == before


def test_no_more_windows_are_in_work_than_allowed(sqlite_library, run):
    class Counting(InkEngine):
        def __init__(self):
            super().__init__()
            self.now, self.most, self.lock = 0, 0, threading.Lock()

        def predict(self, patches):
            with self.lock:
                self.now += 1
                self.most = max(self.most, self.now)
            try:
                return super().predict(patches)
            finally:
                with self.lock:
                    self.now -= 1

    engine = Counting()
    run(rooted(sqlite_library, IMAGE), 130, engine=engine)
    assert engine.most <= 2


def test_results_of_other_settings_are_refused_and_nothing_is_mixed(sqlite_library, run):
    slide = rooted(sqlite_library, IMAGE)
    run(slide)
    before = list_tiles(sqlite_library.store.database, slide.id)
    with pytest.raises(Conflict):
        run(slide, mpp=Mpp(0.4, 0.4))
    assert list_tiles(sqlite_library.store.database, slide.id) == before


def test_a_scale_that_changed_under_a_run_ends_it_and_nothing_is_mixed(sqlite_library, run):
    slide = rooted(sqlite_library, IMAGE)
    with pytest.raises(Conflict, match="mpp has changed"):
        run(slide, mpp=Mpp(0.4, 0.4))
    assert list_tiles(sqlite_library.store.database, slide.id) == []
    assert sqlite_library.store.slide(slide.id).model is None


def test_a_file_that_vanished_or_changed_ends_the_run(sqlite_library, run):
    slide = rooted(sqlite_library, IMAGE)
    path = sqlite_library.root / "slide.tif"
    content = path.read_bytes()
    path.write_bytes(content + b"1")
    with pytest.raises(Conflict):
        run(slide)
    path.unlink()
    with pytest.raises(NotFound):
        run(slide)


class Fragile(InkEngine):
    """Stands for a separator that crashes over some windows."""

    def __init__(self, crashes):
        super().__init__()
        self.crashes = crashes

    def predict(self, patches):
        if self.crashes:
            self.crashes -= 1
            raise SeparatorFault
        return super().predict(patches)


def test_a_window_whose_worker_died_is_tried_again(sqlite_library, run, monkeypatch):
    monkeypatch.setattr(running, "PAUSE_S", 0.01)
    slides = [rooted(sqlite_library, IMAGE, name) for name in ("a.tif", "b.tif")]
    run(slides[0])
    run(slides[1], engine=Fragile(3))
    found = [in_order(nuclei_of(sqlite_library, slide)) for slide in slides]
    np.testing.assert_array_equal(*found)


def test_a_window_over_which_every_worker_dies_ends_the_run(sqlite_library, run, monkeypatch):
    monkeypatch.setattr(running, "PAUSE_S", 0.001)
    with pytest.raises(InferenceFailed, match="however often"):
        run(rooted(sqlite_library, IMAGE), engine=Fragile(10_000))


def test_a_model_that_fails_ends_the_run_and_leaves_what_was_done(sqlite_library, run):
    slide = rooted(sqlite_library, IMAGE)

    class Failing(InkEngine):
        def predict(self, patches):
            if len(self.calls) == 3:
                raise RuntimeError("boom")
            return super().predict(patches)

    with pytest.raises(InferenceFailed):
        run(slide, 150, engine=Failing())
    assert len(list_tiles(sqlite_library.store.database, slide.id)) > 0
