"""What tests of training share: threads as they were, and small data in Lizard's layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.training.layouts import write_lizard


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """A run sets torch's threads for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of six drawn images of one source."""
    return write_lizard(tmp_path_factory.mktemp("lizard"), [f"glas_{i}" for i in range(6)])
