"""How does a slide come in, how is it found again, and how does it leave without a trace?

Files first on the way in, rows first on the way out: there may be a file without a row for a while, which `sweep`
removes, but never a row without its file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import delete, select

from app.nuclei.errors import Conflict, InvalidParameter, NotFound
from app.nuclei.types import Mpp
from app.slides import paths
from app.slides.jobbook import OPEN
from app.slides.opening import open_source
from app.slides.records import NewSlide, Origin, Slide
from app.slides.regions import slide_mpp
from app.slides.schema import jobs, slides
from app.slides.sources import Source
from app.slides.store import Store
from app.slides.uploads import GRACE_S, Files, Upload

MAX_SIDE = 2**31 - 1


@dataclass(frozen=True)
class Library:
    """Slides, their files and what is kept of them.

    Attributes:
        store: rows.
        files: the service's own slide files.
        root: slides that callers may name by path; None if they may not.
    """

    store: Store
    files: Files
    root: Path | None = None

    def add_blank(self, width: int, height: int, mpp: Mpp | None, owner: str = "") -> Slide:
        """A slide of which only tiles will come.

        Raises:
            InvalidParameter: if it has no pixels, or more than can be counted.
        """
        for name, side in (("width", width), ("height", height)):
            if not 1 <= side <= MAX_SIDE:
                raise InvalidParameter(name, f"{name} is a whole number of pixels from 1 to {MAX_SIDE}")
        return self.store.add_slide(NewSlide(width, height, mpp, owner=owner))

    def add_path(self, given: str, mpp: Mpp | None = None, owner: str = "") -> Slide:
        """A slide below the slide root, which stays where it is.

        Args:
            given: relative path, as the caller wrote it.
            mpp: what the caller says of its scale.
            owner: whose it is.

        Raises:
            NotFound: if callers may not name paths here, or there is nothing.
            Refusal: as `paths.below` and `opening.open_source`.
        """
        if self.root is None:
            raise NotFound("this service reads no slides by path; send the file")
        path = paths.below(self.root, given)
        relative = path.relative_to(self.root.resolve()).as_posix()
        with open_source(path) as source:
            size, mtime = _stamp(path)
            return self.store.add_slide(_new(source, mpp, "rooted", relative, size, mtime, None, owner))

    def add_upload(self, upload: Upload, mpp: Mpp | None = None, owner: str = "") -> Slide:
        """Finish an upload and keep it as a slide, if it is one.

        Args:
            upload: all of whose pieces were written.
            mpp: what the caller says of its scale.
            owner: whose it is.

        Raises:
            Refusal: as `Upload.finish`, `opening.open_source` and `Store.add_slide`; nothing is kept then.
        """
        path = upload.finish()
        try:
            with open_source(path) as source:
                size, mtime = _stamp(path)
                new = _new(source, mpp, "upload", upload.name, size, mtime, upload.sha256, owner)
            return self.store.add_slide(new, upload.slide_id)
        except BaseException:
            self.files.remove(upload.slide_id)
            raise

    def open(self, slide: Slide) -> Source:
        """The pixels of a slide.

        Raises:
            NotFound: if only tiles came, or the file is no longer there.
            Conflict: if the file is not the one that was registered.
            Refusal: as `opening.open_source`.
        """
        source = open_source(self.check(slide))
        if (source.levels[0].width, source.levels[0].height) != (slide.width, slide.height):
            source.close()
            raise Conflict("the slide's file has changed since it was registered; register it anew")
        return source

    def check(self, slide: Slide) -> Path:
        """Where the file of a slide lies, if it is still the one that was registered.

        Raises:
            NotFound: if only tiles came, or the file is no longer there.
            Conflict: if the file is another one.
        """
        path = self._path(slide)
        if _stamp(path) != (slide.file_bytes, slide.file_mtime_ns):
            raise Conflict("the slide's file has changed since it was registered; register it anew")
        return path

    def set_mpp(self, slide: Slide, mpp: float) -> Slide:
        """Take a caller's word for the scale of a slide that is here already.

        Raises:
            InvalidParameter: if it is not a finite number above 0.
            Conflict: if there are results at another scale.
        """
        own = (slide.mpp.x, slide.mpp.y) if slide.mpp and slide.mpp.source == "file" else None
        said = slide_mpp(mpp, own)
        assert said is not None
        return self.store.set_mpp(slide.id, said)

    def delete(self, slide_id: str) -> None:
        """Forget a slide: tiles, jobs and an uploaded file; a file below the slide root stays.

        Raises:
            NotFound: if there is no such slide.
        """
        self.store.delete_slide(slide_id)
        self.files.remove(slide_id)

    def expire(self, before_ms: int) -> list[str]:
        """Delete slides that nobody wrote to since a moment; those with an unfinished job stay.

        Args:
            before_ms: milliseconds since 1970, UTC.

        Returns:
            Their ids.
        """
        busy = select(jobs.c.slide_id).where(jobs.c.state.in_(OPEN))
        old = slides.c.touched_ms < before_ms
        query = delete(slides).where(old, slides.c.id.not_in(busy)).returning(slides.c.id)
        with self.store.database.write() as connection:
            gone = list(connection.execute(query).scalars())
        if gone:
            self.store.database.shrink()
        for slide_id in gone:
            self.files.remove(slide_id)
        return gone

    def sweep(self, grace_s: float = GRACE_S) -> int:
        """Remove files that a crash left without a row; how many there were. Run at start and now and then."""
        with self.store.database.read() as connection:
            known = set(connection.execute(select(slides.c.id)).scalars())
        return self.files.sweep(known, grace_s)

    def _path(self, slide: Slide) -> Path:
        if slide.path is None or (slide.origin == "rooted" and self.root is None):
            raise NotFound("the service has no pixels of this slide, only tiles that were sent")
        if slide.origin == "upload":
            return self.files.path_of(slide.id, slide.path)
        assert self.root is not None
        return paths.below(self.root, slide.path)


def _new(
    source: Source, mpp: Mpp | None, origin: Origin, path: str, size: int, mtime: int, sha256: str | None, owner: str
) -> NewSlide:
    source.read(0, 0, 0, 1, 1)  # a header may promise pixels that are not there
    level, scale = source.levels[0], slide_mpp(mpp, source.mpp)
    return NewSlide(level.width, level.height, scale, origin, path, source.vendor, size, mtime, sha256, owner)


def _stamp(path: Path) -> tuple[int, int]:
    """Size in bytes and time of last change of a file, or of all files of a folder together."""
    try:
        stats = [each.stat() for each in (sorted(path.iterdir()) if path.is_dir() else [path])]
    except FileNotFoundError:
        raise NotFound("the slide's file is no longer there") from None
    return sum(each.st_size for each in stats), max((each.st_mtime_ns for each in stats), default=0)
