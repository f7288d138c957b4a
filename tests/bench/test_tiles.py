"""Tiles are real tissue, 256 pixels wide, spread over all images of a folder."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from app.bench.tiles import corners, load_tiles


def opened(tile: bytes) -> Image.Image:
    return Image.open(io.BytesIO(tile))


def test_without_a_folder_the_shipped_tissue_is_cut():
    tiles = [opened(tile) for tile in load_tiles()]
    assert [(tile.format, tile.size) for tile in tiles] == [("JPEG", (256, 256))] * 4


@pytest.mark.parametrize(("width", "height", "number"), [(256, 256, 1), (255, 600, 0), (511, 513, 2), (768, 512, 6)])
def test_only_whole_tiles_are_cut(width, height, number):
    assert len(corners(width, height)) == number


def test_a_folders_images_all_give_tiles(tmp_path):
    for i in range(4):
        Image.fromarray(np.full((256, 512, 3), 60 * i, np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "notes.txt").write_text("no image")
    grey = [np.asarray(opened(tile)).mean() for tile in load_tiles(tmp_path, most=4)]
    assert np.round(grey, -1).tolist() == [0, 60, 120, 180]
    assert len(load_tiles(tmp_path)) == 8


def test_a_folder_without_room_for_a_tile_is_refused(tmp_path):
    Image.new("RGB", (255, 255)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match="no PNG, JPEG or TIFF of at least 256 x 256"):
        load_tiles(tmp_path)
