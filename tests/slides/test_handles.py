"""Slides that viewers look at are opened once, however many look."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from app.slides.handles import Handles
from app.slides.library import Library
from app.slides.records import Slide
from app.slides.sources import Source
from tests.drawn import draw_tissue


class Counting(Library):
    """A library that counts what is opened, and opens slowly."""

    opened = 0

    def open(self, slide: Slide) -> Source:
        Counting.opened += 1
        threading.Event().wait(0.05)
        return super().open(slide)


@pytest.fixture
def slide(sqlite_library):
    Image.fromarray(draw_tissue(300, 400)).save(sqlite_library.root / "slide.png")
    return sqlite_library.add_path("slide.png")


def test_viewers_who_come_at_once_share_one_decoded_image(sqlite_library, slide):
    Counting.opened = 0
    handles = Handles(Counting(sqlite_library.store, sqlite_library.files, sqlite_library.root))

    def look(_: int) -> np.ndarray:
        with handles.lent(slide) as source:
            return source.read(0, 10, 20, 30, 40)

    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(look, range(24)))
    handles.close()
    assert Counting.opened == 1
    assert all(np.array_equal(piece, draw_tissue(300, 400)[20:60, 10:40]) for piece in seen)


def test_a_slide_that_was_forgotten_is_opened_anew(sqlite_library, slide):
    Counting.opened = 0
    handles = Handles(Counting(sqlite_library.store, sqlite_library.files, sqlite_library.root))
    for _ in range(2):
        with handles.lent(slide):
            handles.forget(slide.id)  # while it is in use
    handles.close()
    assert Counting.opened == 2
