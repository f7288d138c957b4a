from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from app.formats import overlay
from app.nuclei.taxonomy import BY_ID


def read(data):
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (180, 260, 3), np.uint8)


def test_outlines_have_the_size_of_the_image_and_a_transparent_ground(draw, scatter):
    finer = draw(scatter(90, 130), size=(201, 260), mpp=0.25)
    picture = read(overlay.png(finer))
    assert picture.shape == (201, 260, 4)
    assert set(np.unique(picture[..., 3])) > {0, 255}


def test_without_nuclei_nothing_is_drawn(nothing):
    assert not read(overlay.png(nothing)).any()


def test_the_outermost_pixels_of_a_nucleus_have_its_colour_and_its_middle_stays_clear(few):
    picture = read(overlay.png(few))
    colours = [BY_ID[kind].colour for kind in (2, 2, 3, 2, 6)]
    firsts = [np.argwhere(few.grid == number)[0] for number in range(1, 6)]
    assert [tuple(picture[row, col, :3].tolist()) for row, col in firsts] == colours
    assert [picture[int(y), int(x), 3] for x, y in few.nuclei.centroid] == [0] * 5


def test_neighbours_that_touch_keep_each_its_own_line(draw):
    labels = np.zeros((20, 20), np.int32)
    labels[5:15, 4:10], labels[5:15, 10:16] = 1, 2
    picture = read(overlay.png(draw(labels, kinds=[2, 3])))
    assert tuple(picture[10, 9, :3].tolist()) == BY_ID[2].colour
    assert tuple(picture[10, 10, :3].tolist()) == BY_ID[3].colour


def test_a_nucleus_at_the_border_is_closed_there(draw):
    picture = read(overlay.png(draw(np.ones((6, 6), np.int32))))
    line = picture[..., 3] == 255
    expected = np.ones((6, 6), bool)
    expected[1:-1, 1:-1] = False
    np.testing.assert_array_equal(line, expected)


def test_over_an_image_the_tissue_between_the_outlines_is_untouched(few, image):
    lines, picture = read(overlay.png(few)), read(overlay.png(few, image))
    clear = lines[..., 3] == 0
    np.testing.assert_array_equal(picture[clear][:, :3], image[clear])
    assert (picture[..., 3] == 255).all()


def test_lines_over_an_image_are_those_on_the_transparent_ground(few, image):
    lines, picture = read(overlay.png(few)), read(overlay.png(few, image))
    drawn = lines[..., 3] == 255
    np.testing.assert_array_equal(picture[drawn], lines[drawn])


def test_a_legend_lies_below_a_picture_enlarged_by_a_whole_number(few, image):
    picture = read(overlay.png(few, image, legend=True))
    assert picture.shape[1] == 3 * 260
    assert picture.shape[0] > 3 * 180
    below = {tuple(pixel) for pixel in picture[3 * 180 :, :, :3].reshape(-1, 3).tolist()}
    assert {kind.colour for kind in BY_ID.values()} <= below


def test_a_nucleus_whose_class_stayed_open_is_grey_and_counted_in_the_legend(few):
    open_class = replace(few, nuclei=replace(few.nuclei, type=np.array([0, 2, 3, 2, 6], np.uint8)))
    grey = (read(overlay.png(open_class, legend=True))[..., :3] == 160).all(axis=-1)
    assert grey[: 3 * 180].any()
    assert grey[3 * 180 :].any()


def test_the_smallest_image_has_an_overlay_and_a_legend(draw):
    one_pixel = draw(np.ones((1, 1), np.int32))
    assert read(overlay.png(one_pixel)).shape == (1, 1, 4)
    assert read(overlay.png(one_pixel, legend=True)).ndim == 3
