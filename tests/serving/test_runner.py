"""One thread owns the device; every call gets its own maps, whatever becomes of its neighbours."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from app.nuclei.errors import Abandoned, DeadlineExceeded, DeviceFault, Draining, InferenceFailed
from app.serving.work import WorkClass
from tests.serving.benches import BUCKET, Bench, Grey, levels, wait_for


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.grey.go.set()
    bench.runner.close()


def test_patches_of_several_requests_share_a_batch_and_come_back_to_their_own(bench):
    with bench.held():
        trays = [bench.submit(10, 20), bench.submit(30), bench.submit(40, 50, 60)]
    assert [levels(tray) for tray in trays] == [[10, 20], [30], [40, 50, 60]]
    assert bench.grey.sizes == [1, 6]


def test_all_runs_and_chores_happen_in_one_thread(bench):
    names = [bench.runner.do(lambda: threading.current_thread().name) for _ in range(2)]
    assert names == ["karyon-device"] * 2


def test_a_chore_that_fails_fails_for_its_caller_alone(bench):
    with pytest.raises(ZeroDivisionError):
        bench.runner.do(lambda: 1 // 0)
    assert levels(bench.submit(7)) == [7]


def test_queued_patches_of_a_cancelled_request_never_run(bench):
    with bench.held():
        gone = bench.ticket()
        tray, other = bench.submit(10, 20, ticket=gone), bench.submit(30)
        bench.runner.cancel(gone)
    with pytest.raises(Abandoned):
        tray.wait()
    assert levels(other) == [30]
    assert bench.grey.sizes == [1, 1]


def test_a_cancelled_request_queues_nothing_more(bench):
    gone = bench.ticket()
    bench.runner.cancel(gone)
    with pytest.raises(Abandoned):
        bench.submit(1, ticket=gone)


def test_a_batch_that_nobody_waits_for_is_ended_and_the_next_one_runs(bench):
    gone = bench.ticket()
    bench.grey.go.clear()
    tray = bench.submit(10, ticket=gone)
    assert bench.grey.begun.wait(30)
    bench.runner.cancel(gone)
    wait_for(lambda: not bench.runner.stalled_s())
    bench.grey.go.set()
    with pytest.raises(Abandoned):
        tray.wait()
    assert levels(bench.submit(20)) == [20]


def test_a_batch_that_somebody_waits_for_is_not_ended(bench):
    gone, gate = bench.ticket(), threading.Event()
    chore = threading.Thread(target=bench.runner.do, args=(gate.wait,))
    chore.start()
    wait_for(bench.runner.stalled_s)
    lost, kept = bench.submit(10, ticket=gone), bench.submit(20)
    bench.grey.go.clear()
    gate.set()
    assert bench.grey.begun.wait(30)
    bench.runner.cancel(gone)
    assert not bench.grey.ended.is_set()
    bench.grey.go.set()
    assert (levels(kept), bench.grey.sizes) == ([20], [2])
    with pytest.raises(Abandoned):
        lost.wait()
    chore.join()


def test_memory_that_runs_out_halves_the_batch_and_is_remembered(bench):
    bench.grey.fits = 4
    with bench.held():
        tray = bench.submit(*range(10, 26))
    assert levels(tray) == list(range(10, 26))
    assert bench.runner.ask(lambda scheduler: scheduler.model(BUCKET).max_batch_cost) == 4
    bench.grey.sizes.clear()
    assert levels(bench.submit(*range(30, 42))) == list(range(30, 42))
    assert max(bench.grey.sizes) <= 4


def test_a_patch_that_does_not_fit_alone_has_the_engine_opened_anew_once(bench):
    bench.grey.fits = 0
    with pytest.raises(InferenceFailed):
        bench.submit(1).wait()
    assert bench.opened == 2
    bench.grey.fits = 1
    assert levels(bench.submit(2)) == [2]


def test_an_engine_that_is_to_be_opened_anew_does_not_move_to_another_device(bench):
    bench.grey.fits, bench.elsewhere = 0, Grey()
    bench.elsewhere.provider = "CPUExecutionProvider"
    with pytest.raises(InferenceFailed):
        bench.submit(1).wait()
    assert (bench.opened, bench.engine.provider, bench.elsewhere.sizes) == (2, Grey.provider, [])
    bench.grey.fits = 1000  # another process gave the memory back
    assert levels(bench.submit(2)) == [2]


def test_a_poisoned_patch_costs_its_own_request_alone(bench):
    bench.grey.poison = 66
    with bench.held():
        good, bad, fine = bench.submit(10, 20), bench.submit(66, 67), bench.submit(30)
    assert (levels(good), levels(fine)) == ([10, 20], [30])
    with pytest.raises(InferenceFailed):
        bad.wait()


def test_a_device_that_stays_broken_refuses_everything_from_then_on(bench):
    with bench.held():
        queued = bench.submit(10)
        bench.grey.says = "CUDA failure 700: an illegal memory access was encountered"
    for tray in (bench.first, queued):
        with pytest.raises(DeviceFault):
            tray.wait()
    wait_for(lambda: not bench.runner.healthy)
    with pytest.raises(DeviceFault):
        bench.submit(20)
    with pytest.raises(DeviceFault):
        bench.runner.do(lambda: None)


def test_a_thread_that_dies_is_not_healthy_and_leaves_nobody_waiting(bench):
    with bench.held():
        queued = bench.submit(10)
        bench.engine.resume = lambda: 1 // 0  # nothing expects this to fail
    with pytest.raises(DeviceFault):
        queued.wait()
    wait_for(lambda: not bench.runner.healthy)


def test_what_cannot_be_answered_in_time_is_refused_whole_and_does_not_run(bench):
    with bench.held():
        late = bench.submit(10, 20, 30, ticket=bench.ticket(within_s=-1))
    with pytest.raises(DeadlineExceeded):
        late.wait()
    assert levels(bench.submit(40)) == [40]
    assert bench.grey.sizes == [1, 1]


def test_stopping_finishes_what_runs_and_refuses_what_waits(bench):
    with bench.held():
        queued = bench.submit(10)
        bench.runner.stop()
    assert levels(bench.first) == [1]
    for ask in (queued.wait, lambda: bench.submit(20)):
        with pytest.raises(Draining):
            ask()
    bench.runner.close()
    assert bench.runner.healthy


def test_aborting_refuses_what_runs_as_well(bench):
    with bench.held():
        queued = bench.submit(10)
        bench.runner.abort()
        for tray in (bench.first, queued):
            with pytest.raises(Draining):
                tray.wait()
    bench.runner.close()
    assert bench.runner.healthy


def test_memory_is_given_back_once_after_idling():
    bench = Bench(idle_s=0.01)
    bench.submit(1).wait()
    wait_for(lambda: bench.grey.shrunk)
    assert not bench.runner.stalled_s()
    bench.runner.close()
    assert bench.grey.shrunk == 1


def test_a_run_that_hangs_is_no_progress_and_can_be_interrupted(bench):
    with bench.held():
        wait_for(lambda: bench.runner.stalled_s() > 0.01)
        bench.runner.interrupt()
        with pytest.raises(InferenceFailed):
            bench.first.wait()
        wait_for(lambda: bench.runner.stalled_s() == 0)


def test_one_at_a_screen_comes_before_the_rest_of_a_job(bench):
    with bench.held(WorkClass.BULK):
        bulk = [bench.submit(10, ticket=bench.ticket("jobs", WorkClass.BULK)) for _ in range(200)]
        first = bench.submit(20)
    assert [levels(tray) for tray in (first, *bulk)] == [[20]] + [[10]] * 200
    assert bench.grey.ran[1] == 20
