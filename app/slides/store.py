"""How is a result kept so that nothing accepted is ever lost, and nothing is kept twice?

Each public call is one transaction: when it returns, its effect is on the disk, and when it raises or the process dies,
none of it is. A slide's row is locked first, so writers on one slide take turns. A tile that overlaps or abuts others
is settled with them in the same transaction (see `settling`), so that counts in the tables always agree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, insert, select, tuple_, update

from app.nuclei.errors import Conflict, NotFound, StorageFull
from app.nuclei.types import Mpp, Nuclei, UInt8
from app.slides import seams
from app.slides.columns import Packed, pack, unpack_table
from app.slides.database import Database
from app.slides.jobbook import unfinished
from app.slides.places import Place, Spot
from app.slides.records import Kept, ModelKey, NewSlide, NewTile, Slide, new_id, now_ms, place_of, slide_of
from app.slides.schema import densities, payloads, slides, tiles
from app.slides.settling import counted, settle_around, spread

ROW_BYTES = 512  # what a tile takes in tables and indexes besides its payload, about


@dataclass(frozen=True)
class Store:
    """Slides and their tiles.

    Attributes:
        database: opened and migrated.
        quota_bytes: that tiles and uploaded files may take together; None leaves it to the disk.
    """

    database: Database
    quota_bytes: int | None = None

    def add_slide(self, new: NewSlide, slide_id: str | None = None) -> Slide:
        """Keep a slide without tiles.

        Args:
            new: what it is.
            slide_id: 32 hexadecimal digits, if a folder was made under that name already; a new one by default.

        Raises:
            StorageFull: if its file exceeds the quota.
        """
        mpp, now = new.mpp, now_ms()
        row = {
            "id": slide_id or new_id(),
            "owner": new.owner,
            "origin": new.origin,
            "path": new.path,
            "file_bytes": new.file_bytes,
            "file_mtime_ns": new.file_mtime_ns,
            "file_sha256": new.file_sha256,
            "vendor": new.vendor,
            "width": new.width,
            "height": new.height,
            **_mpp_columns(mpp),
            "tile_bytes": 0,
            "tallest": 0.0,
            "reach": 0.0,
            "created_ms": now,
            "touched_ms": now,
        }
        with self.database.write() as connection:
            self._check_quota(connection, new.file_bytes if new.origin == "upload" else 0)
            return slide_of(connection.execute(insert(slides).values(row).returning(*slides.c)).one())

    def slide(self, slide_id: str, owner: str | None = None) -> Slide:
        """One slide.

        Args:
            slide_id: which one.
            owner: whose it must be; anybody's if None.

        Raises:
            NotFound: if there is none of this id, or it is somebody else's: the answer does not tell which.
        """
        with self.database.read() as connection:
            found = _found(connection.execute(select(slides).where(slides.c.id == slide_id)).one_or_none())
        if owner not in (None, found.owner):
            return _found(None)
        return found

    def list_slides(self, limit: int = 100, after: str | None = None, owner: str | None = None) -> list[Slide]:
        """Slides, newest first.

        Args:
            limit: how many at most.
            after: id of the last slide of the page before.
            owner: whose; everybody's if None.

        Raises:
            NotFound: if there is no slide `after`.
        """
        query = select(slides).order_by(slides.c.created_ms.desc(), slides.c.id.desc()).limit(limit)
        if owner is not None:
            query = query.where(slides.c.owner == owner)
        if after is not None:
            last = self.slide(after, owner)
            query = query.where(tuple_(slides.c.created_ms, slides.c.id) < tuple_(last.created_ms, last.id))
        with self.database.read() as connection:
            return [slide_of(row) for row in connection.execute(query)]

    def set_mpp(self, slide_id: str, mpp: Mpp) -> Slide:
        """Say how large a pixel of level 0 is.

        Raises:
            NotFound: if there is no such slide.
            Conflict: if there are results at another scale already, or a job that will bring some.
        """
        with self.database.write() as connection:
            slide = lock(connection, slide_id)
            if slide.mpp == mpp:
                return slide
            if slide.mpp is None or (slide.mpp.x, slide.mpp.y) != (mpp.x, mpp.y):
                if slide.model is not None:
                    raise Conflict("the slide has results at another mpp; delete it to start over")
                if connection.execute(unfinished(slide_id)).first() is not None:
                    raise Conflict("the slide has a job at another mpp that is not finished; wait for it, or cancel it")
            changed = _mpp_columns(mpp) | {"touched_ms": now_ms()}
            query = update(slides).where(slides.c.id == slide_id).values(changed).returning(*slides.c)
            return slide_of(connection.execute(query).one())

    def delete_slide(self, slide_id: str) -> Slide:
        """Forget a slide with its tiles and jobs; its uploaded file is removed by the caller afterwards.

        Raises:
            NotFound: if there is no such slide.
        """
        with self.database.write() as connection:
            slide = lock(connection, slide_id)
            connection.execute(delete(slides).where(slides.c.id == slide_id))
        self.database.shrink()
        return slide

    def put_tile(self, slide_id: str, tile: NewTile) -> Kept:
        """Keep a tile; the same content at the same place again changes nothing, unless it answers for more of it.

        Args:
            slide_id: of its slide.
            tile: what was found; may overlap or abut other tiles.

        Raises:
            NotFound: if there is no such slide (any more).
            Conflict: if the slide holds results of another model or other settings, or too many tiles at one place, or
                if its scale is not any more what the tile was analysed at.
            StorageFull: if the quota or the disk is full.
        """
        packed = pack(tile.nuclei, tile.step)
        with self.database.write() as connection:
            slide = lock(connection, slide_id)
            known = connection.execute(select(*tiles.c).where(_same(slide_id, tile))).one_or_none()
            if known is not None:
                core = place_of(known).core
                if core.holds(tile.place.core):
                    return Kept(known.id, False)
                tile = replace(tile, place=replace(tile.place, core=core.joined(tile.place.core)))
                _remove(connection, slide_id, known)
            check_scale(slide, tile.mpp)
            claim(connection, slide, tile.model)
            # Unpacked again at its place, so that what is settled now is to the bit what is settled later.
            nuclei = unpack_table(packed.table, (tile.place.x, tile.place.y))
            flags = seams.alone(tile.place, nuclei, (slide.width, slide.height))
            size = ROW_BYTES + len(packed.table) + len(packed.rings) + len(flags)
            self._check_quota(connection, size)
            tile_id = _insert(connection, slide_id, tile, packed, nuclei, flags, size)
            _touch(connection, slide_id, size, tile.place.height, nuclei)
            settle_around(connection, slide, tile.place.core)
        return Kept(tile_id, True)

    def find_tile(self, slide: Slide, spot: Spot, content_sha256: str, model: ModelKey) -> int | None:
        """The row of a tile that was sent with this content to this place, analysed by this model; None if none was.

        One that had a larger margin answers for less of it and does not count.
        """
        same = {"slide_id": slide.id, "x": spot.x, "y": spot.y, "content_sha256": content_sha256}
        same |= {"model_sha256": model.sha256, "config_sha256": model.config_sha256}
        query = select(*tiles.c).where(*(tiles.c[name] == value for name, value in same.items()))
        with self.database.read() as connection:
            for row in connection.execute(query):
                wanted = Place.inside(spot.x, spot.y, row.width, row.height, spot.margin, (slide.width, slide.height))
                if place_of(row).core.holds(wanted.core):
                    return int(row.id)
        return None

    def used_bytes(self) -> int:
        """What tiles and uploaded files take."""
        with self.database.read() as connection:
            return _used(connection)

    def room_bytes(self) -> int | None:
        """What may still come under the quota; None without one."""
        return None if self.quota_bytes is None else max(0, self.quota_bytes - self.used_bytes())

    def _check_quota(self, connection: Connection, more: int) -> None:
        if self.quota_bytes is not None and _used(connection) + more > self.quota_bytes:
            raise StorageFull("the store's quota is used up; delete slides that are no longer needed")


def lock(connection: Connection, slide_id: str) -> Slide:
    """A slide, held against other writers until the transaction ends.

    Raises:
        NotFound: if there is none of this id.
    """
    return _found(connection.execute(select(slides).where(slides.c.id == slide_id).with_for_update()).one_or_none())


def claim(connection: Connection, slide: Slide, model: ModelKey) -> None:
    """Make this the slide's model, if it is not already.

    Raises:
        Conflict: if the slide holds results of another model or other settings.
    """
    check_model(slide, model)
    if slide.model is None:
        names = dict(zip(("model_name", "model_version", "model_sha256"), model[:3], strict=True))
        settings = {"config_sha256": model.config_sha256, "profile": model.profile}
        connection.execute(update(slides).where(slides.c.id == slide.id).values(names | settings))


def check_model(slide: Slide, model: ModelKey) -> None:
    """Refuse results that a slide must not hold beside those that it has.

    Raises:
        Conflict: if it holds results of another model or other settings.
    """
    if slide.model is None:
        return
    if (slide.model.sha256, slide.model.config_sha256) != (model.sha256, model.config_sha256):
        raise Conflict(
            f"the slide holds results of {slide.model.name}@{slide.model.version}, profile {slide.model.profile};"
            " results of another model or with other settings need a slide of their own"
        )


def check_scale(slide: Slide, mpp: Mpp | None) -> None:
    """Refuse results at another scale than the slide's: what is written of them in um would be wrong.

    Raises:
        Conflict: if somebody said the slide's scale while they were made.
    """
    own = slide.mpp
    if own is not None and mpp is not None and (own.x, own.y) != (mpp.x, mpp.y):
        raise Conflict("the slide's mpp has changed since this analysis began; start it anew")


def _found(row: Row[Any] | None) -> Slide:
    if row is None:
        raise NotFound("there is no slide of this id")
    return slide_of(row)


def _mpp_columns(mpp: Mpp | None) -> dict[str, Any]:
    figures = (mpp.x, mpp.y, mpp.source, mpp.conflict) if mpp else (None, None, None, False)
    return dict(zip(("mpp_x", "mpp_y", "mpp_source", "mpp_conflict"), figures, strict=True))


def _used(connection: Connection) -> int:
    kept = func.sum(slides.c.tile_bytes)
    uploaded = select(func.sum(slides.c.file_bytes)).where(slides.c.origin == "upload").scalar_subquery()
    row = connection.execute(select(func.coalesce(kept, 0), func.coalesce(uploaded, 0))).one()
    return int(row[0]) + int(row[1])


def _identity(slide_id: str, tile: NewTile) -> dict[str, Any]:
    place, model = tile.place, tile.model
    values = (place.x, place.y, place.width, place.height, tile.content_sha256, model.sha256, model.config_sha256)
    names = ("x", "y", "width", "height", "content_sha256", "model_sha256", "config_sha256")
    return {"slide_id": slide_id} | dict(zip(names, values, strict=True))


def _same(slide_id: str, tile: NewTile) -> Any:
    return and_(*(tiles.c[name] == value for name, value in _identity(slide_id, tile).items()))


def _insert(
    connection: Connection, slide_id: str, tile: NewTile, packed: Packed, nuclei: Nuclei, flags: UInt8, size: int
) -> int:
    row = _identity(slide_id, tile) | dict(
        zip(("core_x0", "core_y0", "core_x1", "core_y1"), tile.place.core, strict=True)
    )
    row |= _box_columns(nuclei) | counted(nuclei.type, flags) | {"found": len(nuclei), "bytes": size}
    row |= {"qc_verdict": tile.qc.verdict, "qc_codes": ",".join(tile.qc.codes), "created_ms": now_ms()}
    row |= {"by_job": tile.by_job}
    tile_id = int(connection.execute(insert(tiles).values(row).returning(tiles.c.id)).scalar_one())
    qc = {"verdict": tile.qc.verdict, "codes": list(tile.qc.codes), "measures": dict(tile.qc.measures)}
    pieces = {"flags": flags.tobytes(), "nuclei": packed.table, "rings": packed.rings}
    connection.execute(insert(payloads).values(tile_id=tile_id, qc=qc, provenance=dict(tile.provenance), **pieces))
    connection.execute(insert(densities).values(tile_id=tile_id, cells=spread(nuclei, flags)))
    return tile_id


def _remove(connection: Connection, slide_id: str, row: Row[Any]) -> None:
    connection.execute(delete(tiles).where(tiles.c.id == row.id))
    less = {"tile_bytes": slides.c.tile_bytes - row.bytes}
    connection.execute(update(slides).where(slides.c.id == slide_id).values(less))


def _box_columns(nuclei: Nuclei) -> dict[str, float | None]:
    low, high = nuclei.bbox[:, :2], nuclei.bbox[:, 2:]
    box = [*low.min(0).tolist(), *high.max(0).tolist()] if len(nuclei) else [None] * 4
    return dict(zip(("nx0", "ny0", "nx1", "ny1"), box, strict=True))


def _touch(connection: Connection, slide_id: str, size: int, tallest: float, nuclei: Nuclei) -> None:
    height = float(nuclei.bbox[:, 3].max() - nuclei.bbox[:, 1].min()) if len(nuclei) else 0.0
    larger = func.max if connection.dialect.name == "sqlite" else func.greatest  # of two arguments
    changed = {
        "tile_bytes": slides.c.tile_bytes + size,
        "touched_ms": now_ms(),
        "tallest": larger(slides.c.tallest, tallest),
        "reach": larger(slides.c.reach, height),
    }
    connection.execute(update(slides).where(slides.c.id == slide_id).values(changed))
