"""Eight sides of one tissue."""

from __future__ import annotations

import numpy as np
import pytest

from app.nuclei.types import HoverMaps
from app.nuclei.views import PAPER_VIEWS, VIEWS, View, predict


def _maps(seed: int, size: int = 16) -> HoverMaps:
    rng = np.random.default_rng(seed)
    shapes = [(2, size, size), (2, size, size, 2), (2, size, size, 7)]
    return HoverMaps(*(rng.random(s).astype(np.float32) for s in shapes))


class Echo:
    """Answers with the picture itself, so that what comes back shows what was done to it."""

    def predict(self, patches: np.ndarray) -> HoverMaps:
        values = patches.astype(np.float32) / 255
        return HoverMaps(
            values[..., 0], np.zeros((*values.shape[:-1], 2), np.float32), np.repeat(values[..., :1], 7, -1)
        )


@pytest.mark.parametrize("view", VIEWS, ids=lambda v: v.name)
def test_unseeing_undoes_seeing(view: View) -> None:
    maps = _maps(1)
    seen = HoverMaps(view.see(maps.np_prob[..., None])[..., 0], view.see_hv(maps.hv), view.see(maps.type_prob))
    back = view.unsee(seen)
    np.testing.assert_array_equal(back.np_prob, maps.np_prob)
    np.testing.assert_array_equal(back.type_prob, maps.type_prob)
    np.testing.assert_array_equal(back.hv, maps.hv)


def test_the_eight_views_are_all_different() -> None:
    square = np.arange(9).reshape(3, 3)
    assert len({view.see(square).tobytes() for view in VIEWS}) == 8


@pytest.mark.parametrize(("name", "signs"), [("left-right", (-1, 1)), ("up-down", (1, -1)), ("original", (1, 1))])
def test_a_flip_turns_its_own_arrows_round(name: str, signs: tuple[int, int]) -> None:
    view = next(v for v in VIEWS if v.name == name)
    hv = np.ones((4, 4, 2), np.float32)
    np.testing.assert_array_equal(view.unsee_hv(hv), hv * np.array(signs))


def test_the_papers_views_are_the_patch_and_its_two_flips() -> None:
    assert [v.name for v in PAPER_VIEWS] == ["original", "left-right", "up-down"]


def test_averaging_views_of_an_equivariant_engine_changes_nothing() -> None:
    patches = np.random.default_rng(2).integers(0, 256, (3, 8, 8, 3), np.uint8)
    one, three = predict(Echo(), patches, PAPER_VIEWS[:1]), predict(Echo(), patches, VIEWS)
    assert one.furthest_from(three) < 1e-6


def test_no_views_are_refused() -> None:
    with pytest.raises(ValueError, match="no views"):
        predict(Echo(), np.zeros((1, 8, 8, 3), np.uint8), [])
