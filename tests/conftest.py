"""Fixtures that tests share, and where real data lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.nuclei.types import UInt8
from tests.drawn import InkEngine, draw_tissue

PROJECT = Path(__file__).parents[1]


def _where(variable: str, default: str) -> Path:
    path = (PROJECT / os.environ.get(variable, default)).resolve()
    if not path.is_dir():
        pytest.skip(f"{variable} ({default}) is not there")
    return path


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Real tissue with labels; see training/README.md for where to get it."""
    return _where("KARYON_DATA", "../shared/data")


@pytest.fixture(scope="session")
def golden_root() -> Path:
    """Reference results."""
    return _where("KARYON_GOLDEN", "../shared/golden")


@pytest.fixture
def ink() -> InkEngine:
    return InkEngine()


@pytest.fixture
def tissue() -> UInt8:
    return draw_tissue(255, 300)
