"""Arrows between the rooms run downhill only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
WEB = frozenset({"fastapi", "starlette", "uvicorn"})
ROOMS: dict[str, frozenset[str]] = {  # room -> rooms of ours that it may import; the longest prefix counts
    "app.nuclei": frozenset({"app.nuclei"}),
    "app.formats": frozenset({"app.nuclei"}),
    "app.serving": frozenset({"app.nuclei"}),
    "app.slides": frozenset({"app.nuclei", "app.formats", "app.serving"}),
    "app.api": frozenset({"app.nuclei", "app.formats", "app.serving", "app.slides", "app.settings", "app.telemetry"}),
    "app.bench": frozenset({"app.bench", "app.nuclei", "app.settings"}),  # asks over HTTP, as any caller would
    "app.settings": frozenset(),
    "app.telemetry": frozenset(),
    "app.client": frozenset(),
    "app": frozenset({"app"}),
    "training": frozenset({"training", "app.nuclei"}),
}
WITHOUT_WEB = ("app.nuclei", "app.formats", "app.serving", "app.slides", "app.bench", "training")


def inside(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def room_of(module: str) -> str:
    return max((room for room in ROOMS if inside(module, room)), key=len)


def may_import(importer: str, imported: str) -> bool:
    top = imported.partition(".")[0]
    if top in WEB:
        return not any(inside(importer, room) for room in WITHOUT_WEB)
    if top in ("torch", "training"):
        return inside(importer, "training")
    if top == "ray":
        return importer == "app.ray_app"
    if top == "onnxruntime":
        return importer == "app.nuclei.engine" or inside(importer, "training")
    if top != "app" or imported in ("app", "app.__version__"):
        return True
    own = room_of(importer)
    return inside(imported, own) or any(inside(imported, room) for room in ROOMS[own])


def modules() -> list[tuple[str, Path]]:
    found = [path for top in ("app", "training") for path in sorted((PROJECT / top).rglob("*.py"))]
    return [
        (".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__"), path) for path in found
    ]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the room"
            assert node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name for name, _ in modules()])
def test_every_import_runs_downhill(module, path):
    assert [name for name in imports(path) if not may_import(module, name)] == []


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("app.nuclei.hover", "app.formats.geojson"),
        ("app.serving.runner", "app.formats.geojson"),
        ("app.formats.table", "fastapi.FastAPI"),
        ("app.settings", "app.nuclei.types"),
        ("app.main", "training.train"),
        ("app.api.routes", "app.main.create_app"),
        ("training.train", "app.formats.geojson"),
        ("app.nuclei.segmenter", "torch"),
        ("app.api.decoding", "onnxruntime"),
    ],
)
def test_uphill_is_barred(importer, imported):
    assert not may_import(importer, imported)
