"""Nothing leaves this machine that its owner did not send, not even from the libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SEGMENT = """
import app.nuclei, numpy
segmenter = app.nuclei.Segmenter(app.nuclei.load_artifact("karyon-lite"))
segmenter.segment(numpy.full((64, 64, 3), 200, numpy.uint8), mpp=0.5)
"""


@pytest.mark.parametrize("command", [SEGMENT, "import training.export"], ids=["service", "training"])
def test_onnx_runtime_keeps_no_identifier_of_this_machine_and_reports_nothing(tmp_path: Path, command: str):
    if "training" in command:
        pytest.importorskip("torch")
    hushed = {"CI", "GITHUB_ACTIONS", "TF_BUILD", "ORT_DISABLE_TELEMETRY"}  # where it would be silent by itself
    env = {name: value for name, value in os.environ.items() if name not in hushed}
    env |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "NUMBA_DISABLE_JIT": "1", "MPLCONFIGDIR": "/tmp"}
    subprocess.run([sys.executable, "-c", command], env=env, check=True, timeout=120)
    assert [path.name for path in tmp_path.rglob("*") if "onnxruntime" in path.name or path.name == "deviceid"] == []
