"""How do nuclei leave for data frames: the columns of the table and the outlines, as GeoParquet?

GeoParquet 1.1.0: outlines as WKB, `crs` an explicit null, as an absent one would mean longitudes. pyarrow comes with
the extra `tables`; it is imported when it is needed.
"""

from __future__ import annotations

import io
import json
from importlib.util import find_spec
from typing import Any

import numpy as np
import shapely

from app.formats.table import NUMBERS, class_names
from app.nuclei.errors import MissingExtra
from app.nuclei.types import Float64, Nuclei, Rings, UInt8

MEDIA_TYPE = "application/vnd.apache.parquet"
WHOLE = frozenset({"touches_border", "uncertain"})  # 0 or 1
_GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": None, "edges": "planar"}},
}


def check_installed() -> None:
    """Refuse early what could not be written later.

    Raises:
        MissingExtra: if pyarrow is not installed.
    """
    if find_spec("pyarrow") is None:
        raise MissingExtra("Parquet needs the extra tables: pip install karyon[tables]")


class Writer:
    """Rows in, pieces of a file out; what was given out is no longer held."""

    def __init__(self) -> None:
        """An empty file.

        Raises:
            MissingExtra: if pyarrow is not installed.
        """
        check_installed()
        import pyarrow as pa  # noqa: PLC0415 - optional, and a second to import
        from pyarrow import parquet as pq  # noqa: PLC0415

        self._pa = pa
        self._schema = pa.schema(
            [
                ("id", pa.string()),
                ("class", pa.dictionary(pa.int8(), pa.string())),
                *((name, pa.bool_() if name in WHOLE else pa.float64()) for name in NUMBERS),
                ("geometry", pa.binary()),
            ],
            {"geo": json.dumps(_GEO)},
        )
        self._out = _Drained()
        self._file = pq.ParquetWriter(self._out, self._schema, compression="zstd")

    def write(self, ids: UInt8, nuclei: Nuclei, figures: dict[str, Float64]) -> None:
        """Add rows; many at a time make a good file.

        Args:
            ids: (N, 36) uint8, ASCII.
            nuclei: with rings.
            figures: of `table.figures_of`; NaN becomes null.
        """
        text = ids.tobytes().decode("ascii")
        columns: dict[str, Any] = {
            "id": [text[at : at + 36] for at in range(0, len(text), 36)],
            "class": class_names(nuclei),
        }
        for name, column in figures.items():
            columns[name] = self._pa.array(column.astype(np.bool_) if name in WHOLE else column, from_pandas=True)
        columns["geometry"] = shapely.to_wkb(polygons(nuclei.rings))
        self._file.write_table(self._pa.table(columns, schema=self._schema))

    def pieces(self) -> bytes:
        """What was written since the last call."""
        return self._out.drained()

    def finish(self, members: dict[str, Any]) -> bytes:
        """The rest of the file.

        Args:
            members: what is said of the nuclei together; kept as JSON in the file's metadata under `karyon`.
        """
        self._file.add_key_value_metadata({"karyon": json.dumps(members)})
        self._file.close()
        return self._out.drained()


def polygons(rings: Rings) -> Any:
    """(N,) shapely polygons."""
    count = len(rings)
    ring_of = np.repeat(np.arange(count), np.diff(rings.offsets))
    return shapely.polygons(shapely.linearrings(rings.points, indices=ring_of)) if count else np.empty(0, object)


class _Drained(io.RawIOBase):
    """A file that is only written on, and forgets what was taken from it."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        self._at += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._at

    def drained(self) -> bytes:
        taken, self._pieces = b"".join(self._pieces), []
        return taken
