"""A model folder for an engine without weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from app.nuclei.hover import NATIVE
from app.nuclei.taxonomy import NAMES
from app.nuclei.types import Engine, UInt8


def build_model(folder: Path, engine: Engine, image: UInt8, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    patch = np.zeros((1, 256, 256, 3), np.uint8)
    patch[0, : image.shape[0], : image.shape[1]] = image
    maps = engine.predict(patch)
    np.savez(folder / "golden.npz", patches=patch, np_prob=maps.np_prob, hv=maps.hv, type_prob=maps.type_prob)
    (folder / "ink.onnx").write_bytes(b"no weights: ink is dark")
    (folder / "manifest.json").write_text(json.dumps(manifest_of(folder) | changes))
    return folder


def manifest_of(folder: Path) -> dict[str, Any]:
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("ink.onnx", "golden.npz")}
    return {
        "schema": 1,
        "name": "ink",
        "version": folder.name,
        "members": [{"encoder": "ink", "file": "ink.onnx", "sha256": digests["ink.onnx"], "parameters": 0}],
        "classes": list(NAMES),
        "mpp": 0.5,
        "patch_sizes": [256, 512],
        "margin": 64,
        "postprocess": asdict(NATIVE),
        "profiles": {"fast": ["original"], "accurate": ["original", "left-right", "up-down"]},
        "calibration": {"temperature": 1.0},
        "licence": "CC0-1.0",
        "training": {"data": "drawn discs"},
        "tumour_burden_reason": "discs are no tissue",
        "scores": {},
        "golden": {"file": "golden.npz", "sha256": digests["golden.npz"], "tolerance": 1e-3},
    }
