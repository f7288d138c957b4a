"""Batch sizes are measured on the device, within a budget, and remembered."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.serving.calibration import MOST, PREPARATION_S, Measured, Shelf, measure
from app.serving.enrolment import cost_model
from app.serving.work import Bucket

KEY = {"weights": "abc", "device": "cpu", "runtime": "r 1", "patch_size": 256}


def test_a_device_that_gains_nothing_from_batches_gets_patches_one_by_one():
    found = measure(lambda n: 0.1 * n, budget_s=10)
    assert (found.most, found.a, found.b) == (1, pytest.approx(0.1), pytest.approx(0, abs=1e-9))


def test_a_device_that_gains_much_gets_the_smallest_batch_that_is_nearly_as_fast():
    found = measure(lambda n: 0.001 * n + 0.02, budget_s=100)
    assert (found.most, found.a, found.b) == (MOST, pytest.approx(0.001), pytest.approx(0.02))
    assert measure(lambda n: 0.02 * n + 0.001, budget_s=100).most == 1


@pytest.mark.parametrize(("a", "b", "most"), [(0.1, 0.02, 2), (0.05, 0.02, 4), (0.02, 0.1, 4), (0.3, 0.3, 1)])
def test_a_batch_never_holds_others_up_for_long_however_much_it_would_bring(a, b, most):
    assert measure(lambda n: a * n + b, budget_s=100).most == most


@pytest.mark.parametrize("width", [2, 4, 6, 8, 16])
def test_patches_that_run_side_by_side_get_batches_that_fill_all_lanes(width):
    def in_lanes(count: int) -> float:  # what is left over is run by all cores, one patch after the other
        return 0.009 * (count // width) * width + 0.01 * (count % width)

    assert measure(in_lanes, budget_s=100, abreast=width).most == width


def test_one_slow_run_does_not_decide():
    seen = []

    def run(count: int) -> float:
        seen.append(count)
        return (0.01 * count + 0.01) * (3 if seen.count(count) == 1 else 1)

    assert measure(run, budget_s=100).most == measure(lambda n: 0.01 * n + 0.01, budget_s=100).most


class Preparing:
    """A device that takes a while over the first batch of every size, and notes the sizes it ran."""

    def __init__(self, first_s: float) -> None:
        self.first_s, self.sizes = first_s, []

    def __call__(self, count: int) -> float:
        self.sizes.append(count)
        return 0.0002 * count + 0.004 + (self.first_s if self.sizes.count(count) == 1 else 0.0)


def test_what_a_gpu_takes_to_prepare_itself_is_no_part_of_what_batches_take():
    found = measure(Preparing(1.5), budget_s=0.6, prepares=True)
    assert found == measure(Preparing(0.0), budget_s=0.6)
    assert found.most > 16
    assert measure(Preparing(1.5), budget_s=0.6).most == 1  # what it would look like with it


def test_a_gpu_that_prepares_itself_for_too_long_gets_no_larger_batches():
    device = Preparing(0.4 * PREPARATION_S)
    found = measure(device, budget_s=0.6, prepares=True)
    assert set(device.sizes) == {1, 2, 4}
    assert found.a == pytest.approx(0.0002)


def test_memory_that_refuses_ends_the_search():
    def run(count: int) -> float:
        if count > 4:
            raise RuntimeError("Failed to allocate memory")
        return 0.001 * count + 0.05

    assert measure(run, budget_s=100).most == 4


def test_any_other_fault_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        measure(lambda n: n // 0, budget_s=1)


def test_memory_may_refuse_while_a_gpu_prepares_itself():
    def run(count: int) -> float:
        if count > 4:
            raise RuntimeError("Failed to allocate memory")
        return 0.001 * count + 0.05

    assert measure(run, budget_s=100, prepares=True).most == 4


@given(st.floats(1e-4, 1), st.floats(0, 1), st.floats(0, 5), st.integers(1, 16))
def test_the_budget_is_kept_by_all_runs_after_the_first(a, b, budget_s, abreast):
    spent = []
    measure(lambda n: spent.append(a * n + b) or spent[-1], budget_s, abreast)
    assert sum(spent[1:]) <= budget_s + 1e-9


def test_without_a_budget_one_patch_is_timed_once():
    sizes = []
    measure(lambda n: sizes.append(n) or 0.5, budget_s=0)
    assert sizes == [1]


def test_what_was_measured_is_found_again_under_the_same_key_alone(tmp_path):
    shelf, found = Shelf(tmp_path / "new"), Measured(0.01, 0.002, 8)
    shelf.put(KEY, found)
    assert shelf.get(KEY) == found
    assert [shelf.get(KEY | other) for other in ({"weights": "x"}, {"runtime": "r 2"}, {"device": "cuda"})] == [
        None
    ] * 3


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b"null", b'{"key": 1}', {"a": -1.0}, {"a": float("nan")}, {"most": 10**9}, {"b": None}],
)
def test_a_measurement_that_makes_no_sense_is_as_if_it_were_not_there(tmp_path, content):
    shelf = Shelf(tmp_path)
    shelf.put(KEY, Measured(0.01, 0.002, 8))
    (path,) = tmp_path.iterdir()
    path.write_bytes(
        content if isinstance(content, bytes) else json.dumps(json.loads(path.read_text()) | content).encode()
    )
    assert shelf.get(KEY) is None


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(tmp_path):
    (tmp_path / "file").write_text("")
    shelf = Shelf(tmp_path / "file" / "below")
    shelf.put(KEY, Measured(0.01, 0.0, 1))
    assert shelf.get(KEY) is None


def test_views_and_members_multiply_what_was_measured():
    bucket = Bucket("m@1/accurate", 3, 512)
    model = cost_model(Measured(0.1, 0.02, 4), bucket, members=2)
    assert model.estimate(5 * bucket.cost(2)) == pytest.approx(3 * (5 * 0.1 + 0.02))
    assert model.max_batch_cost == 4 * bucket.cost(2)


@pytest.mark.parametrize(("views", "most"), [(1, 8), (2, 4), (3, 2), (8, 1), (50, 1)])
def test_views_that_run_one_after_another_share_the_time_of_a_batch(views, most):
    one = Measured(0.03, 0.005, 8)
    assert one.in_turn(views) == Measured(one.a, one.b, most)
