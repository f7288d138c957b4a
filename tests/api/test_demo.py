"""The demonstration runs the real service as a process and leaves its results behind."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from app import demo

PROJECT = Path(__file__).parents[2]


def test_the_demonstration_writes_nuclei_and_a_picture(onnx_store, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(demo, "OUT", tmp_path / "out")
    for name, value in {"MODEL_STORE": str(onnx_store), "MODEL": "dark", "THREADS": "1"}.items():
        monkeypatch.setenv(f"KARYON_{name}", value)
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    assert demo.main() == 0
    nuclei = json.loads((tmp_path / "out" / "demo.geojson").read_text())
    assert f"{nuclei['summary']['total']} nuclei" in capsys.readouterr().out
    assert "stain_shift" in nuclei["qc"]["codes"]
    with Image.open(tmp_path / "out" / "demo.png") as picture:
        assert picture.size == (512, 560)
