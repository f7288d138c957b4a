from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from app.formats import hovernet
from app.formats.document import members


def written(segmentation, context):
    return json.loads(hovernet.encode(segmentation, context))


def filled(contour, shape):
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [np.array(contour, np.int32)], 1)
    return canvas > 0


def test_a_filled_contour_gives_the_mask_again(many, context):
    for number, nucleus in written(many, context)["nuc"].items():
        np.testing.assert_array_equal(filled(nucleus["contour"], many.grid.shape), many.grid == int(number))


def test_contours_lie_on_the_grid_of_the_caller(draw, scatter, context):
    finer = draw(scatter(90, 130), size=(180, 260), mpp=0.25)
    for number, nucleus in written(finer, context)["nuc"].items():
        mask = finer.instance_map == int(number)
        np.testing.assert_array_equal(filled(nucleus["contour"], (180, 260)), mask)


def test_a_box_is_row_and_column_with_its_far_side_outside(many, context):
    for number, nucleus in written(many, context)["nuc"].items():
        (top, left), (bottom, right) = nucleus["bbox"]
        rows, cols = np.nonzero(many.grid == int(number))
        assert (top, left, bottom, right) == (rows.min(), cols.min(), rows.max() + 1, cols.max() + 1)


def test_a_contour_fills_its_box_in_x_and_y(many, context):
    for nucleus in written(many, context)["nuc"].values():
        contour = np.array(nucleus["contour"])
        np.testing.assert_array_equal(contour.min(axis=0)[::-1], nucleus["bbox"][0])
        np.testing.assert_array_equal(contour.max(axis=0)[::-1] + 1, nucleus["bbox"][1])


def test_a_centroid_counts_from_the_centre_of_the_first_pixel(many, context):
    centroids = [nucleus["centroid"] for nucleus in written(many, context)["nuc"].values()]
    rows, cols = np.nonzero(many.grid == 1)
    np.testing.assert_allclose(centroids[0], [cols.mean(), rows.mean()], atol=0.005)
    np.testing.assert_allclose(centroids, many.nuclei.centroid - 0.5, atol=0.005)


def test_type_and_probability_are_those_of_the_nucleus(many, context):
    nuclei = written(many, context)["nuc"].values()
    assert [nucleus["type"] for nucleus in nuclei] == many.nuclei.type.tolist()
    np.testing.assert_allclose([nucleus["type_prob"] for nucleus in nuclei], many.nuclei.type_prob, atol=5e-5)


def test_nuclei_are_numbered_as_on_the_instance_map(many, context):
    assert list(written(many, context)["nuc"]) == [str(number) for number in many.nuclei.id.tolist()]


def test_nuclei_of_one_and_two_pixels_still_have_three_points(draw, context):
    labels = np.zeros((8, 8), np.int32)
    labels[2, 3] = 1
    labels[5, 6:8] = 2
    first, second = written(draw(labels), context)["nuc"].values()
    assert first["contour"] == [[3, 2], [3, 2], [3, 2]]
    assert second["contour"] == [[6, 5], [7, 5], [7, 5]]


def test_a_nucleus_between_the_pixels_of_a_coarser_image_keeps_its_place(draw, context):
    labels = np.zeros((40, 40), np.int32)
    labels[4:6, 20:22] = 1
    (nucleus,) = written(draw(labels, size=(4, 4), mpp=5), context)["nuc"].values()
    assert nucleus["contour"] == [[2, 0], [2, 0], [2, 0]]
    assert nucleus["bbox"] == [[0, 2], [1, 3]]


@pytest.mark.parametrize(("mpp", "mag"), [(0.5, 20), (0.25, 40), (0.499, 20.04)])
def test_the_magnification_is_ten_over_the_microns_per_pixel(draw, context, mpp, mag):
    assert written(draw(np.ones((4, 4), np.int32), mpp=mpp), context)["mag"] == mag


def test_a_key_of_our_own_says_where_the_nuclei_came_from(many, context):
    document = written(many, context)
    assert list(document) == ["mag", "nuc", "karyon"]
    assert document["karyon"] == members(many, context)


def test_a_tile_without_nuclei_has_none(nothing, context):
    assert written(nothing, context)["nuc"] == {}
