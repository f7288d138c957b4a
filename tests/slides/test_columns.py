"""Nuclei to bytes and back, to the bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.nuclei.errors import StoreDamaged
from app.nuclei.instances import simplify
from app.nuclei.types import Nuclei
from app.slides.columns import Packed, pack, unpack, unpack_table
from tests.drawn import draw_tissue
from tests.slides.kept import assert_same_nuclei, described, found


@pytest.fixture
def nuclei() -> Nuclei:
    return found(draw_tissue(300, 400))


def test_what_was_packed_comes_back_to_the_bit(nuclei):
    assert_same_nuclei(unpack(pack(nuclei)), nuclei)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 8), st.floats(0.1, 8), st.floats(0, 1), st.booleans())
def test_any_label_map_at_any_scale_comes_back_to_the_bit(seed, scale_x, scale_y, density, told):
    labels = (np.random.default_rng(seed).random((17, 23)) < density) * np.arange(1, 392, dtype=np.int32).reshape(
        17, 23
    )
    nuclei = described(labels.astype(np.int32), (scale_x, scale_y))
    assert_same_nuclei(unpack(pack(nuclei, (scale_x, scale_y) if told else (1.0, 1.0))), nuclei)


def test_no_nuclei_are_some_bytes_and_come_back():
    nobody = described(np.zeros((8, 8), np.int32))
    assert_same_nuclei(unpack(pack(nobody)), nobody)


def test_numbers_with_gaps_an_open_class_and_simplified_rings_come_back(nuclei):
    kind, probs = nuclei.type.copy(), nuclei.type_prob.copy()
    kind[3], probs[3] = 0, 0.0
    odd = replace(nuclei, id=nuclei.id * 3, type=kind, type_prob=probs, rings=simplify(nuclei.rings, 0.75)[0])
    assert_same_nuclei(unpack(pack(odd)), odd)


def test_rings_that_jump_far_come_back():
    labels = np.zeros((2, 70_000), np.int32)
    labels[:, :3], labels[:, -3:] = 1, 2
    far = described(labels)
    assert_same_nuclei(unpack(pack(far)), far)


def test_the_origin_moves_positions_and_nothing_else(nuclei):
    moved, shift = unpack(pack(nuclei), (1000.0, 250.5)), np.array([1000.0, 250.5])
    here = replace(
        nuclei,
        centroid=nuclei.centroid + shift,
        bbox=nuclei.bbox + np.tile(shift, 2),
        rings=replace(nuclei.rings, points=nuclei.rings.points + shift),
    )
    assert_same_nuclei(moved, here)


def test_the_table_alone_has_everything_but_rings(nuclei):
    alone = unpack_table(pack(nuclei).table)
    assert len(alone.rings) == 0
    assert_same_nuclei(replace(alone, rings=nuclei.rings), nuclei)


def test_a_nucleus_takes_less_than_150_bytes(nuclei):
    packed = pack(nuclei)
    assert (len(packed.table) + len(packed.rings)) / len(nuclei) < 150


@pytest.mark.parametrize("piece", ["table", "rings"])
@pytest.mark.parametrize("spoil", [lambda b: b[:-1], lambda b: b[:10], lambda b: b"", lambda b: b"\2" + b[1:]])
def test_damage_is_noticed(nuclei, piece, spoil):
    packed = pack(nuclei)
    with pytest.raises(StoreDamaged):
        unpack(packed._replace(**{piece: spoil(getattr(packed, piece))}))


def test_every_flipped_byte_of_the_columns_is_noticed(nuclei):
    packed = pack(nuclei)
    for at in range(40, len(packed.table), 997):
        broken = bytearray(packed.table)
        broken[at] ^= 0x10
        with pytest.raises(StoreDamaged):
            unpack(Packed(bytes(broken), packed.rings))


def test_rings_of_another_tile_are_noticed(nuclei):
    with pytest.raises(StoreDamaged, match="rings"):
        unpack(Packed(pack(nuclei).table, pack(found(draw_tissue(100, 100))).rings))
