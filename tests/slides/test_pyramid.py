"""Levels and tiles follow Deep Zoom's rule, and tiles laid together are the level."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import numpy as np
import pytest

from app.nuclei.errors import NotFound, PayloadTooLarge
from app.slides.pictures import pixels
from app.slides.plain import PlainSource
from app.slides.pyramid import TILE, Pyramid, PyramidTile
from app.slides.sources import Level, pyramid
from tests.drawn import draw_tissue

SIZES = [(1, 1), (1, 2), (2, 1), (255, 256), (256, 257), (600, 480), (1023, 4097), (100_000, 79_873)]


def tiles_of(levels: Pyramid, level: int) -> list[PyramidTile]:
    width, height = levels.size(level)
    return [levels.tile(level, c, r) for r in range(-(-height // TILE)) for c in range(-(-width // TILE))]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_levels_halve_from_the_whole_down_to_one_pixel(width, height):
    levels = Pyramid(width, height)
    assert levels.top == math.ceil(math.log2(max(width, height)))
    assert levels.size(levels.top) == (width, height)
    assert levels.size(0) == (1, 1)
    for level in range(levels.top):
        finer = levels.size(level + 1)
        assert levels.size(level) == (math.ceil(finer[0] / 2), math.ceil(finer[1] / 2))


@pytest.mark.parametrize(("width", "height"), SIZES[:-1])
def test_tiles_cover_each_pixel_of_a_level_once(width, height):
    levels = Pyramid(width, height)
    for level in range(levels.top + 1):
        size = levels.size(level)
        covered = np.zeros(size[::-1], np.int64)
        for tile in tiles_of(levels, level):
            covered[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] += 1
        assert (covered == 1).all()


@pytest.mark.parametrize("place", [(-1, 0, 0), (11, 0, 0), (10, 3, 0), (10, 0, 2), (0, 1, 0), (10, -1, 0)])
def test_there_is_nothing_beyond_the_last_tile(place):
    with pytest.raises(NotFound):
        Pyramid(600, 480).tile(*place)


def test_the_descriptor_tells_a_viewer_all_it_needs():
    image = ElementTree.fromstring(Pyramid(600, 480).descriptor("png"))
    namespace = "{http://schemas.microsoft.com/deepzoom/2008}"
    assert (image.tag, image.attrib) == (f"{namespace}Image", {"Format": "png", "Overlap": "0", "TileSize": "256"})
    assert image[0].attrib == {"Width": "600", "Height": "480"}


class Shrunk:
    """The same picture with a second level whose remainder was cut off, as scanners do."""

    def __init__(self, image):
        self.images = [image, image[: image.shape[0] // 2 * 2 : 2, : image.shape[1] // 2 * 2 : 2]]
        self.levels = pyramid([(each.shape[1], each.shape[0]) for each in self.images])

    def read(self, level, x, y, width, height):
        return self.images[level][y : y + height, x : x + width]


@pytest.mark.parametrize("source", [PlainSource, Shrunk], ids=["one level", "two levels"])
def test_picture_tiles_laid_together_are_the_level(source):
    image = draw_tissue(611, 777)
    slide = source(image, "png") if source is PlainSource else source(image)
    levels = Pyramid(777, 611)
    for level in range(levels.top + 1):
        width, height = levels.size(level)
        whole = pixels(slide, PyramidTile(level, 2 ** (levels.top - level), 0, 0, width, height))
        laid = np.zeros_like(whole)
        for tile in tiles_of(levels, level):
            laid[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] = pixels(slide, tile)
        np.testing.assert_array_equal(laid, whole)
    np.testing.assert_array_equal(pixels(slide, PyramidTile(levels.top, 1, 0, 0, 777, 611)), image)


def test_a_slide_read_in_strips_looks_the_same(monkeypatch):
    slide, tile = PlainSource(draw_tissue(611, 777), "png"), PyramidTile(8, 4, 0, 0, 195, 153)
    whole = pixels(slide, tile)
    monkeypatch.setattr("app.slides.pictures.STRIP_PIXELS", 10_000)
    np.testing.assert_array_equal(pixels(slide, tile), whole)


def test_a_slide_without_coarse_levels_is_not_read_whole_for_one_tile():
    class Huge:
        levels = (Level(200_000, 200_000, 1.0, 1.0),)

    with pytest.raises(PayloadTooLarge, match="pyramid"):
        pixels(Huge(), Pyramid(200_000, 200_000).tile(8, 0, 0))
