"""What is written of a slide as a whole, or of a region drawn on it?"""

from __future__ import annotations

from typing import Any

import shapely

from app.formats.document import NOTICE
from app.nuclei.taxonomy import NAMES
from app.slides.composition import Composition, Region, composition
from app.slides.database import Database
from app.slides.documents import coordinate_space, provenance, scale
from app.slides.records import Slide

METHOD = "Wilson, with windows as clusters (design effect)"
METHOD_ALONE = "Wilson, nuclei as independent (one window)"
NOTHING_YET = "nothing of this was analysed yet"
NO_NUCLEI = "no nuclei were found"


def summary(database: Database, slide: Slide, region: Region | None, why_no_burden: str | None) -> dict[str, Any]:
    """Counts, shares with intervals, densities, area, technical warnings and provenance.

    Args:
        database: of the store.
        slide: all of whose results are of one model.
        region: a part of it; all of it if None.
        why_no_burden: why epithelium does not stand for tumour in this model; None if it does.
    """
    found, mpp = composition(database, slide.id, region), scale(database, slide)
    mm2 = mpp.x * mpp.y / 1e6 if mpp else None
    burden, reason = _tumour_burden(found, why_no_burden)
    return {
        "notice": NOTICE,
        "coordinate_space": coordinate_space(slide, mpp),
        "region": _region(region, mm2),
        "total": found.total,
        "counts": found.per_class,
        "unclassified": int(found.counts[:, 0].sum()),
        "composition_224": None,
        "composition": {name: found.share(name) for name in NAMES},
        "interval": {"level": 0.95, "method": METHOD if found.windows > 1 else METHOD_ALONE, "windows": found.windows},
        "density_per_mm2": _densities(found, mm2),
        "tumour_burden": burden,
        "tumour_burden_reason": reason,
        "area_px": round(found.area, 2),
        "area_mm2": round(found.area * mm2, 6) if mm2 else None,
        "windows": len(found.counts),
        "qc": {
            "verdict": found.verdict,
            "codes": list(found.codes),
            "measures": {},
            "windows_per_verdict": found.verdicts,
            "windows_per_code": found.codes,
        },
        "provenance": provenance(database, slide),
    }


def _region(region: Region | None, mm2: float | None) -> dict[str, Any] | None:
    if region is None:
        return None
    area, corners = region.shape.area, shapely.get_coordinates(region.shape).tolist()
    return {"corners": corners, "area_px": round(area, 2), "area_mm2": round(area * mm2, 6) if mm2 else None}


def _densities(found: Composition, mm2: float | None) -> dict[str, float] | None:
    """Per mm² of what was analysed; None where that has no scale."""
    if mm2 is None:
        return None
    area = found.area * mm2
    return {name: round(count / area, 2) if area else 0.0 for name, count in found.per_class.items()}


def _tumour_burden(found: Composition, why_not: str | None) -> tuple[dict[str, float] | None, str | None]:
    if not len(found.counts):
        return None, NOTHING_YET
    if why_not is not None:
        return None, why_not
    return found.share("epithelial"), None if found.total else NO_NUCLEI
