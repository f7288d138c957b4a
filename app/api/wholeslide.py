"""How is a whole slide analysed without a server? As a job of a store of its own, beside the output, so it can go on.

The store is a folder `.NAME.karyon` beside the output NAME, a file or a folder of DICOM objects. It is removed when all
is written; after an interruption the same command goes on, unless slide, scale, model or profile have changed.
"""

from __future__ import annotations

import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from app.api.analysis import Analysis, Limits
from app.api.inprocess import opener_of
from app.formats import dicom, parquet
from app.nuclei.artifact import Artifact, load_artifact
from app.nuclei.errors import NotFound
from app.nuclei.segmenter import Segmenter
from app.nuclei.types import Engine, HoverMaps, Mpp, Profile, UInt8
from app.settings import Settings
from app.slides.analyst import Analyst
from app.slides.database import Database, in_file
from app.slides.exports import WRITERS, Export
from app.slides.jobbook import OPEN, JobBook, NewJob
from app.slides.library import Library
from app.slides.places import Box
from app.slides.reading import totals
from app.slides.records import Slide, Totals
from app.slides.regions import required
from app.slides.running import Run
from app.slides.store import Store
from app.slides.uploads import Files

ENDINGS = {".geojson": "geojson", ".csv": "csv", ".json": "hovernet", ".parquet": "parquet"}


@dataclass(frozen=True)
class OneAtATime:
    """An engine whose batches take turns: windows side by side would only fight for the same cores."""

    engine: Engine
    turn: threading.Lock

    def __getattr__(self, name: str) -> object:
        return getattr(self.engine, name)  # provider, device, precision

    def predict(self, patches: UInt8) -> HoverMaps:
        """See `Engine`."""
        with self.turn:
            return self.engine.predict(patches)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller wants of a slide: where it is, where its nuclei go, its scale, the views, the size of windows.

    Attributes:
        path: of the slide.
        out: a file, whose ending says what is written; or a folder for DICOM objects.
        mpp: um per pixel of level 0; None takes the file's word.
        profile: which views are averaged; None takes the settings'.
        window: side of the windows; None takes the settings'.
        kinds: of DICOM objects, see `app.formats.dicom.KINDS`; none: `out` is a file.
    """

    path: Path
    out: Path
    mpp: float | None
    profile: Profile | None
    window: int | None = None
    kinds: tuple[str, ...] = ()

    def files(self) -> dict[str, Path]:
        """What is written where: forms of `WRITERS` and their files."""
        if not self.kinds:
            return {ENDINGS[self.out.suffix.lower()]: self.out}
        return {f"dicom-{kind}": self.out / f"{kind}.dcm" for kind in self.kinds}


def analyse(wish: Wish, settings: Settings) -> str:
    """Find the nuclei of a slide and write them; what was counted, in a few lines.

    Raises:
        KaryonError: as the service would say it.
        OSError: if the output cannot be written.
    """
    if not wish.path.exists():
        raise NotFound("there is no such slide")
    _check_writable(wish)
    artifact = load_artifact(settings.model, settings.model_store)
    engine = opener_of(settings)(artifact)
    profile = wish.profile or settings.profile or Segmenter(artifact, engine).default_profile
    analyst = _analyst(artifact, OneAtATime(engine, threading.Lock()), profile, settings)
    home = wish.out.absolute().with_name(f".{wish.out.name}.karyon")
    begun = home.exists()
    try:
        with _store(home, wish.path.resolve().parent) as library:
            slide = _slide(library, wish, analyst)
            mpp = _checked(required(slide.mpp), settings)
            begun = True
            _work(library, slide, mpp, analyst, wish.window or settings.slide_window, settings.slide_windows_at_once)
            slide = library.store.slide(slide.id)
            found = totals(library.store.database, slide.id)
            why_no_burden, file = artifact.manifest.tumour_burden_reason, partial(library.check, slide)
            export = Export(library.store.database, slide, why_no_burden, file)
            said = _described(found, mpp, artifact) + _write_all(export, wish, found.counted)
    finally:
        if not begun:  # refused: there is nothing to go on with
            shutil.rmtree(home, ignore_errors=True)
    shutil.rmtree(home)
    return said


def _analyst(artifact: Artifact, engine: OneAtATime, profile: Profile, settings: Settings) -> Analyst:
    limits = Limits(settings.max_pixels, settings.min_mpp, settings.max_mpp)
    facts = Analysis(artifact, engine, limits, lambda stage, seconds: None, settings.revision)
    segmenter, name = Segmenter(artifact, engine), uuid.uuid4().hex
    return Analyst(artifact, profile, lambda: nullcontext(segmenter), lambda sha256: facts.context(sha256, name))


@contextmanager
def _store(home: Path, root: Path) -> Iterator[Library]:
    home.mkdir(exist_ok=True, mode=0o700)
    with closing(Database.open(in_file(home / "store.sqlite"))) as database:
        yield Library(Store(database), Files(home, 1), root)


def _slide(library: Library, wish: Wish, analyst: Analyst) -> Slide:
    """The slide as an earlier run left it, if it is still what is wanted; else anew."""
    mpp = None if wish.mpp is None else Mpp(wish.mpp, wish.mpp)
    new = library.add_path(wish.path.resolve().name, mpp)
    for old in library.store.list_slides():
        if old.id == new.id:
            continue
        same = (old.path, old.file_bytes, old.file_mtime_ns, old.mpp) == (
            *(new.path, new.file_bytes, new.file_mtime_ns, new.mpp),
        )
        if same and old.mpp is not None and old.model in (None, analyst.key(old.mpp)):
            library.delete(new.id)
            return old
        library.delete(old.id)
    return new


def _checked(mpp: Mpp, settings: Settings) -> Mpp:
    limits = Limits(settings.max_pixels, settings.min_mpp, settings.max_mpp)
    for value in (mpp.x, mpp.y):
        limits.mpp(value, mpp.source)
    return mpp


def _work(library: Library, slide: Slide, mpp: Mpp, analyst: Analyst, side: int, at_once: int) -> None:
    book, artifact = JobBook(library.store.database), analyst.artifact
    for left in book.of_slide(slide.id):
        if left.state in OPEN:
            book.cancel(left.id)
    names = artifact.name, artifact.version, artifact.sha256
    job = book.add(NewJob(slide.id, Box(0, 0, slide.width, slide.height), analyst.profile, *names, mpp))
    with tqdm(unit="window", leave=False, disable=None) as bar:

        def advance() -> None:
            bar.total, bar.n = run.progress.total, run.progress.done
            bar.refresh()

        run = Run(library, job, analyst, side, at_once, advance)
        run.work()


def _check_writable(wish: Wish) -> None:
    """Refuse now what would be refused after hours of work."""
    if "parquet" in wish.files():
        parquet.check_installed()
    if wish.kinds:
        dicom.check_installed()
        from app.slides.dicomresults import check_source  # noqa: PLC0415 - optional, and seconds to import

        check_source(wish.path.resolve(), wish.kinds)


def _write_all(export: Export, wish: Wish, counted: int) -> str:
    """Write what was wished for; what is to be said of that."""
    files, said = wish.files(), ""
    if wish.kinds:
        wish.out.mkdir(exist_ok=True)
    if not counted and "dicom-ann" in files:
        files.pop("dicom-ann").unlink(missing_ok=True)  # of an earlier run
        said = "\nno nuclei: there is nothing to annotate, so there is no ann.dcm"
    for form, file in files.items():
        _write(export, form, file)
    return said


def _write(export: Export, form: str, out: Path) -> None:
    """Whole or not at all."""
    partly = out.with_name(f"{out.name}.partial")
    with partly.open("wb") as file:
        for piece in WRITERS[form](export):
            file.write(piece)
    partly.replace(out)


def _described(found: Totals, mpp: Mpp, artifact: Artifact) -> str:
    names = artifact.manifest.classes
    counts = ", ".join(f"{n} {name}" for name, n in zip(names, found.counts, strict=True) if n) or "no nuclei"
    codes = ", ".join(f"{code} in {n}" for code, n in sorted(found.codes.items()))
    return (
        f"{found.counted} nuclei in {found.tiles} windows: {counts}\n"
        f"technical check: {codes or 'pass'}\n"
        f"scale: {mpp.x:g} um per pixel ({mpp.source}); model {artifact.name}@{artifact.version}, "
        f"{artifact.manifest.licence}\nresearch use only"
    )
