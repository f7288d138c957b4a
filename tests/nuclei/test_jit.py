"""Kernels: compiled once, kept by what their sources say, and never a reason not to start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.nuclei.jit import HAVE_NUMBA

pytestmark = pytest.mark.skipif(not HAVE_NUMBA, reason="numba is not installed")
SOURCE = Path(__file__).parents[2] / "app/nuclei/jit.py"
NOWHERE_TO_WRITE = """
import numba.core.caching as caching
caching.CacheImpl._locator_classes = []  # what numba finds where no folder can be written
from app.nuclei.jit import kernel
print(kernel(lambda x: x + 1)(1))
"""


def stamp_of(folder: Path) -> str:
    command = [sys.executable, "-c", "import app.nuclei.jit as jit; print(jit.__file__, jit._STAMP)"]
    env = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True)
    file, stamp = done.stdout.split()
    assert Path(file).is_relative_to(folder)
    return stamp


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The package's sources, in a folder of their own."""
    shutil.copytree(SOURCE.parents[1], tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__", "*.nb?"))
    return tmp_path


def test_kept_kernels_outlive_a_copy_that_cuts_times(copied):
    before = stamp_of(copied)
    for path in copied.glob("app/nuclei/*.py"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert stamp_of(copied) == before


def test_a_kernel_that_changed_makes_the_kept_ones_stale(copied):
    before = stamp_of(copied)
    with (copied / "app/nuclei/runs.py").open("a") as file:
        file.write("# changed\n")
    assert stamp_of(copied) != before


def test_a_kernel_works_where_nothing_can_be_written():
    done = subprocess.run(
        [sys.executable, "-c", NOWHERE_TO_WRITE], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "2\n"
