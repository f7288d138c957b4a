"""Rings: closed, valid, on pixel edges, and as large as the nucleus."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from app.nuclei.instances import tidy
from app.nuclei.rings import simplify, trace
from app.nuclei.types import Int32, Rings

label_maps = (
    st.tuples(st.integers(1, 14), st.integers(1, 14))
    .flatmap(lambda shape: arrays(np.int32, shape, elements=st.sampled_from([0, 0, 1, 1, 1, 2, 2, 5])))
    .map(lambda labels: tidy(labels)[0])
)
many = settings(max_examples=150, deadline=None)


def drawn(*lines: str) -> Int32:
    return np.array([[int(c) if c != "." else 0 for c in line] for line in lines], np.int32)


def rings_of(labels: Int32) -> Rings:
    return trace(labels, int(labels.max()))


def shoelace(ring: np.ndarray) -> float:
    x, y = ring.T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


@many
@given(label_maps)
def test_every_ring_encloses_exactly_the_pixels_of_its_nucleus(labels):
    areas = [shoelace(ring) for ring in rings_of(labels)]
    np.testing.assert_array_equal(areas, np.bincount(labels.ravel())[1:])


@many
@given(label_maps)
def test_every_ring_is_closed_valid_and_inside_the_image(labels):
    for ring in rings_of(labels):
        assert len(ring) >= 5
        assert (ring[0] == ring[-1]).all()
        assert shapely.Polygon(ring).is_valid
        assert (ring >= 0).all()
        assert (ring <= labels.shape[::-1]).all()


@many
@given(label_maps)
def test_rings_have_corners_alone(labels):
    for ring in rings_of(labels):
        steps = np.diff(ring, axis=0)
        assert ((steps != 0).sum(axis=1) == 1).all()
        assert ((steps[:-1] != 0) != (steps[1:] != 0)).all()


@many
@given(label_maps)
def test_refilling_the_rings_gives_the_map_back(labels):
    rows, cols = np.mgrid[: labels.shape[0], : labels.shape[1]]
    again = np.zeros_like(labels)
    for number, ring in enumerate(rings_of(labels), start=1):
        again[shapely.contains_xy(shapely.Polygon(ring), cols + 0.5, rows + 0.5)] = number
    np.testing.assert_array_equal(again, labels)


@many
@given(label_maps)
def test_kernel_and_numpy_trace_the_same_rings(labels):
    a, b = trace(labels, labels.max(), (2, 3), True), trace(labels, labels.max(), (2, 3), False)
    np.testing.assert_array_equal(a.points, b.points)
    np.testing.assert_array_equal(a.offsets, b.offsets)


def test_one_pixel_in_a_corner_has_a_square_ring():
    ring = rings_of(drawn("..", ".1"))[0]
    np.testing.assert_array_equal(ring, [[1, 1], [2, 1], [2, 2], [1, 2], [1, 1]])


def test_a_map_without_background_has_rings_to_its_border():
    first, second = rings_of(drawn("112", "112"))
    np.testing.assert_array_equal(first, [[0, 0], [2, 0], [2, 2], [0, 2], [0, 0]])
    np.testing.assert_array_equal(second, [[2, 0], [3, 0], [3, 2], [2, 2], [2, 0]])


def test_rings_are_scaled_to_the_callers_pixels():
    labels = drawn(".1", "11")
    plain, scaled = trace(labels, 1), trace(labels, 1, (0.5, 4.0))
    np.testing.assert_array_equal(plain.points * (0.5, 4.0), scaled.points)
    assert shoelace(scaled[0]) == 3 * 2


def test_a_ring_may_visit_every_pixel_of_a_comb():
    labels = drawn(*["1.1.1.1.1", "111111111"])
    assert shoelace(rings_of(labels)[0]) == 14


def discs() -> Int32:
    rows, cols = np.mgrid[:60, :120]
    out = np.zeros((60, 120), np.int32)
    for number, (row, col, radius) in enumerate([(20, 20, 14), (30, 60, 18), (40, 100, 9)], start=1):
        out[np.hypot(rows - row, cols - col) < radius] = number
    return out


def test_simplified_rings_are_valid_have_fewer_points_and_state_their_error():
    exact = rings_of(discs())
    fewer, error = simplify(exact, 0.75)
    assert len(fewer.points) < len(exact.points) / 2
    assert all(shapely.Polygon(ring).is_valid and (ring[0] == ring[-1]).all() for ring in fewer)
    areas = np.array([[shoelace(a), shoelace(b)] for a, b in zip(exact, fewer, strict=True)])
    np.testing.assert_allclose(areas[:, 1] / areas[:, 0] - 1, error, atol=1e-12)
    assert np.abs(error).max() < 0.05


@many
@given(label_maps, st.sampled_from([0.5, 0.75, 3.0]))
def test_simplifying_never_breaks_or_loses_a_ring(labels, tolerance):
    fewer, error = simplify(rings_of(labels), tolerance)
    assert len(fewer) == len(error) == labels.max()
    assert all(shapely.Polygon(ring).is_valid and shoelace(ring) > 0 for ring in fewer)


@pytest.mark.parametrize("compiled", [True, False])
def test_no_nuclei_have_no_rings(compiled):
    rings = trace(np.zeros((4, 5), np.int32), 0, (1, 1), compiled)
    assert (len(rings), rings.points.shape) == (0, (0, 2))
    assert len(simplify(rings, 0.75)[0]) == 0
