"""What is said of a slide's nuclei, besides what is said of every nucleus?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson

from app.formats import geojson
from app.formats.document import NOTICE, slide_nucleus_id_text, summary_of
from app.nuclei.taxonomy import CLASSES, NAMES
from app.nuclei.types import Mpp, UInt8
from app.slides import seams
from app.slides.database import Database
from app.slides.places import Box
from app.slides.reading import chosen, first_details, tile_details, tile_nuclei
from app.slides.records import ModelKey, Slide, TileNuclei

PIXELS = Mpp(1.0, 1.0, "model-default")  # where no scale is known, um are pixels
OF_ANALYSIS = ("service", "model", "profile", "thresholds", "config_sha256", "runtime")
"""What the provenance of a tile says that holds for all tiles of its slide."""


def scale(database: Database, slide: Slide) -> Mpp | None:
    """um per pixel of level 0: as was said, else as its tiles were analysed; None without either."""
    if slide.mpp is not None:
        return slide.mpp
    given = first_details(database, slide.id)[1].get("input", {})
    return Mpp(given["mpp"], given["mpp"], given.get("mpp_source", "model-default")) if "mpp" in given else None


def coordinate_space(slide: Slide, mpp: Mpp | None) -> dict[str, Any]:
    """What the coordinates mean; the scale is null while nobody said it and nothing was analysed."""
    return {
        "unit": "pixel",
        "origin": "top-left",
        "level": 0,
        "width": slide.width,
        "height": slide.height,
        "mpp_x": mpp.x if mpp else None,
        "mpp_y": mpp.y if mpp else None,
        "mpp_source": mpp.source if mpp else None,
    }


def provenance(database: Database, slide: Slide) -> dict[str, Any]:
    """Where the results of a slide come from: what its tiles say in common, and the slide itself."""
    said = first_details(database, slide.id)[1]
    known: dict[str, Any] = {"model": model_of(slide.model)} if slide.model else {"model": None}
    if slide.model:
        known |= {"profile": slide.model.profile, "config_sha256": slide.model.config_sha256}
    return (
        {key: said[key] for key in OF_ANALYSIS if key in said}
        | ({key: value for key, value in known.items() if key not in said})
        | {"slide": slide.id, "input": {"sha256": slide.file_sha256, "width": slide.width, "height": slide.height}}
        | {"changed": moment(slide.touched_ms)}
    )


def model_of(model: ModelKey) -> dict[str, str]:
    """Which model spoke."""
    return {"name": model.name, "version": model.version, "sha256": model.sha256}


def moment(ms: int) -> str:
    """Milliseconds since 1970 as ISO 8601, UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ids_of(slide: Slide, part: TileNuclei) -> UInt8:
    """(N, 36) uint8, ASCII: the identifiers of some nuclei of a tile."""
    assert slide.model is not None
    place = part.tile.place
    numbers = part.nuclei.id.tolist()
    return slide_nucleus_id_text(
        part.tile.content_sha256, slide.model.sha256, slide.model.config_sha256, (place.x, place.y), numbers
    )


def features(slide: Slide, mpp: Mpp | None, part: TileNuclei) -> bytes:
    """GeoJSON features of some nuclei of a tile, commas between them."""
    cut = ((part.flags & seams.CUT) > 0).tolist()
    return geojson.slide_features(part.nuclei, mpp or PIXELS, ids_of(slide, part), cut)


def counts_of(parts: list[TileNuclei]) -> tuple[int, dict[str, int]]:
    """How many nuclei there are in all, and in each class."""
    found = np.zeros(len(CLASSES) + 1, np.int64)
    for part in parts:
        found += np.bincount(part.nuclei.type, minlength=len(found))
    return int(found.sum()), dict(zip(NAMES, found[1:].tolist(), strict=True))


def tile(database: Database, slide: Slide, tile_id: int, epithelium_is_tumour: bool) -> bytes:
    """A tile that is kept, as GeoJSON in pixels of its slide: the nuclei that it answers for now.

    Args:
        database: of the store.
        slide: of the tile.
        tile_id: its row.
        epithelium_is_tumour: whether epithelial nuclei stand for tumour in this model.

    Raises:
        NotFound: if it is gone.
    """
    seen, (qc, said) = tile_nuclei(database, tile_id), tile_details(database, tile_id)
    index = np.flatnonzero((seen.flags & seams.ELSEWHERE) == 0)
    part = TileNuclei(seen.tile, chosen(seen.nuclei, index), seen.flags[index])
    mpp, core, (total, counts) = scale(database, slide) or PIXELS, seen.tile.place.core, counts_of([part])
    mm2 = (core.x1 - core.x0) * (core.y1 - core.y0) * mpp.x * mpp.y / 1e6
    place = seen.tile.place
    head = {
        "type": "FeatureCollection",
        "notice": NOTICE,
        "coordinate_space": coordinate_space(slide, mpp),
        "tile": {"bbox": list(place.box), "core": list(core), "cut": int(((part.flags & seams.CUT) > 0).sum())},
        "summary": summary_of(total, counts, mm2, epithelium_is_tumour),
        "qc": qc,
        "provenance": said,
    }
    return b"".join(_pieces(orjson.dumps(head)[:-1], slide, mpp, [part]))


def viewport(slide: Slide, mpp: Mpp | None, box: Box, parts: list[TileNuclei]) -> bytes:
    """The nuclei of a viewport as GeoJSON.

    Args:
        slide: as it was when they were read, or before.
        mpp: of level 0.
        box: the viewport.
        parts: its nuclei, see `viewing.viewport`.
    """
    total, counts = counts_of(parts)
    head = {
        "type": "FeatureCollection",
        "notice": NOTICE,
        "coordinate_space": coordinate_space(slide, mpp),
        "viewport": {"bbox": list(box), "total": total, "counts": counts},
        "provenance": {"slide": slide.id, "model": model_of(slide.model) if slide.model else None},
    }
    return b"".join(_pieces(orjson.dumps(head)[:-1], slide, mpp, parts))


def _pieces(head: bytes, slide: Slide, mpp: Mpp | None, parts: list[TileNuclei]) -> Iterator[bytes]:
    yield head + b',"features":['
    for number, part in enumerate(parts):
        yield (b"," if number else b"") + features(slide, mpp, part)
    yield b"]}"
