"""The next full batch is brought to a GPU while one runs there; nobody is served later or wrongly for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.nuclei.errors import Abandoned, DeviceFault, Draining
from app.serving.work import WorkClass
from tests.serving.benches import Bench, Lorry, levels, wait_for

BULK = WorkClass.BULK


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench(most=4, grey=Lorry())
    yield bench
    bench.grey.go.set()
    bench.runner.close()


def test_the_next_full_batch_is_copied_while_one_runs(bench):
    with bench.held():
        tray = bench.submit(10, 20, 30, 40, 50)
        wait_for(lambda: bench.grey.copied == [[10, 20, 30, 40]])
        assert bench.grey.ran == [1]
    assert levels(tray) == [10, 20, 30, 40, 50]
    assert bench.grey.sizes == [1, 4, 1]


def test_a_batch_that_others_could_join_is_not_taken_early(bench):
    with bench.held():
        first = bench.submit(10, 20)
        second = bench.submit(30)
    assert (levels(first), levels(second)) == ([10, 20], [30])
    assert (bench.grey.sizes, bench.grey.copied) == ([1, 3], [])


def test_a_batch_that_fills_up_while_another_runs_is_copied_then(bench):
    with bench.held():
        trays = [bench.submit(level, level + 1) for level in (10, 20)]
        wait_for(lambda: bench.grey.copied == [[10, 20, 11, 21]])
    assert [levels(tray) for tray in trays] == [[10, 11], [20, 21]]


def test_a_staged_slice_gives_way_to_an_interactive_patch(bench):
    with bench.held(BULK):
        job = bench.submit(*range(10, 18), ticket=bench.ticket("job", BULK))
        wait_for(lambda: bench.grey.copied)
        viewer = bench.submit(99)
    assert (levels(viewer), levels(job)) == ([99], list(range(10, 18)))
    assert bench.grey.ran[:2] == [1, 99]
    assert sorted(bench.grey.ran) == [1, *range(10, 18), 99]


def test_a_staged_interactive_batch_does_not_give_way(bench):
    with bench.held():
        tray = bench.submit(10, 20, 30, 40)
        wait_for(lambda: bench.grey.copied)
        later = bench.submit(99)
    assert (levels(tray), levels(later), bench.grey.ran) == ([10, 20, 30, 40], [99], [1, 10, 20, 30, 40, 99])


def test_what_nobody_wants_leaves_a_staged_batch_before_it_runs(bench):
    with bench.held():
        gone = bench.ticket()
        lost, kept = bench.submit(10, 20, ticket=gone), bench.submit(30, 40)
        wait_for(lambda: bench.grey.copied)
        bench.runner.cancel(gone)
    assert (levels(kept), bench.grey.ran) == ([30, 40], [1, 30, 40])
    with pytest.raises(Abandoned):
        lost.wait()


def test_a_staged_batch_that_memory_no_longer_takes_is_made_smaller(bench):
    with bench.held():
        tray = bench.submit(10, 20, 30, 40)
        wait_for(lambda: bench.grey.copied)
        bench.runner.ask(
            lambda scheduler: [setattr(scheduler.model(b), "max_batch_cost", 2) for b in scheduler.buckets]
        )
    assert (levels(tray), bench.grey.sizes) == ([10, 20, 30, 40], [1, 2, 2])


def test_a_copy_that_fails_is_made_anew(bench):
    bench.grey.copies = False
    with bench.held():
        tray = bench.submit(10, 20, 30, 40)
        wait_for(lambda: bench.grey.copied)
    assert (levels(tray), bench.grey.sizes) == ([10, 20, 30, 40], [1, 4])


def test_memory_that_runs_out_for_a_staged_batch_halves_it(bench):
    bench.grey.fits = 2
    with bench.held():
        tray = bench.submit(10, 20, 30, 40)
        wait_for(lambda: bench.grey.copied)
    assert (levels(tray), bench.grey.sizes) == ([10, 20, 30, 40], [1, 4, 2, 2])


def test_a_staged_batch_has_not_begun_when_the_service_stops(bench):
    with bench.held():
        tray = bench.submit(10, 20, 30, 40)
        wait_for(lambda: bench.grey.copied)
        bench.runner.stop()
    with pytest.raises(Draining):
        tray.wait()
    assert (levels(bench.first), bench.grey.ran) == ([1], [1])


def test_a_staged_batch_is_refused_when_the_device_breaks(bench):
    with bench.held():
        tray = bench.submit(10, 20, 30, 40)
        wait_for(lambda: bench.grey.copied)
        bench.grey.says = "CUDA failure 700: an illegal memory access was encountered"
    with pytest.raises(DeviceFault):
        tray.wait()
    assert bench.grey.ran == [1]


def test_a_device_without_a_way_to_go_stages_nothing():
    bench = Bench(most=4)
    with bench.held():
        tray = bench.submit(10, 20, 30, 40, 50)
    assert (levels(tray), bench.grey.sizes) == ([10, 20, 30, 40, 50], [1, 4, 1])
    bench.runner.close()
