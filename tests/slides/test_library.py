"""How slides come in and leave: uploads, paths, retention, and what a crash leaves."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import func, select

from app.nuclei.errors import (
    Conflict,
    InvalidImage,
    InvalidParameter,
    MppRequired,
    NotFound,
    PayloadTooLarge,
    StorageFull,
    UnsupportedMediaType,
)
from app.nuclei.types import Mpp
from app.slides import paths
from app.slides.jobbook import JobBook, NewJob
from app.slides.library import Library
from app.slides.places import Box
from app.slides.records import Slide, now_ms
from app.slides.regions import required
from app.slides.schema import payloads, tiles
from app.slides.store import Store
from app.slides.uploads import Files
from tests.slides.kept import tile_at


def send(library: Library, content: bytes, filename: str = "slide.png", mpp: Mpp | None = None) -> Slide:
    with library.files.begin(paths.check_suffix(filename)) as upload:
        for at in range(0, len(content), 1000):
            upload.write(content[at : at + 1000])
        return library.add_upload(upload, mpp)


def files_of(library: Library) -> list[Path]:
    return sorted(path for path in library.files.folder.rglob("*") if path.is_file())


def test_an_uploaded_slide_is_kept_and_read(library, png):
    slide = send(library, png, "patient Müller.PNG")
    assert (slide.origin, slide.width, slide.height, slide.file_bytes) == ("upload", 160, 120, len(png))
    assert [path.name for path in files_of(library)] == ["slide.png"]
    with library.open(library.store.slide(slide.id)) as source:
        assert source.read(0, 0, 0, 160, 120).shape == (120, 160, 3)


def test_an_upload_that_is_no_slide_leaves_nothing(library, png):
    for content, refusal in ((b"text", UnsupportedMediaType), (png[:200], InvalidImage), (b"", InvalidImage)):
        with pytest.raises(refusal):
            send(library, content)
    assert (files_of(library), library.store.list_slides()) == ([], [])


def test_an_upload_that_breaks_off_leaves_nothing(sqlite_library, png):
    with suppress(ConnectionError), sqlite_library.files.begin(".png") as upload:
        upload.write(png[:500])
        raise ConnectionError("the caller hung up")
    assert files_of(sqlite_library) == []


def test_too_large_an_upload_is_refused_when_announced_and_when_sent(tmp_path, png):
    files = Files(tmp_path, max_bytes=1000)
    with files.begin(".png") as upload:
        with pytest.raises(PayloadTooLarge):
            upload.announce(1001)
        upload.write(bytes(1000))
        with pytest.raises(PayloadTooLarge):
            upload.write(b"1")
    assert list(tmp_path.rglob("*.png")) == []


def test_an_upload_beyond_the_quota_is_refused(store, tmp_path, png):
    tight = Store(store.database, quota_bytes=len(png) + 100)
    library = Library(tight, Files(tmp_path / "files", 10**6, tight.room_bytes))
    send(library, png)
    with pytest.raises(StorageFull):
        send(library, png)
    assert len(files_of(library)) == len(library.store.list_slides()) == 1
    library.delete(library.store.list_slides()[0].id)
    assert send(library, png).file_bytes == len(png)


def test_uploads_that_race_for_the_last_room_do_not_both_win(sqlite_library, tmp_path, png):
    tight = Store(sqlite_library.store.database, quota_bytes=len(png) + 100)
    library = Library(tight, Files(tmp_path / "files", 10**6, tight.room_bytes))
    with library.files.begin(".png") as one, library.files.begin(".png") as other:
        for each in (one, other):
            each.write(png)
        library.add_upload(one)
        with pytest.raises(StorageFull):
            library.add_upload(other)
    assert len(files_of(library)) == 1


def test_a_disk_without_spare_room_refuses(tmp_path):
    full = Files(tmp_path, 10**6, spare_bytes=shutil.disk_usage(tmp_path).total)
    with pytest.raises(StorageFull):
        full.begin(".png")


@pytest.mark.parametrize("name", ["a.exe", "a", "", None, "a.svs.zip", "a.mrxs", "a.vms", ".svs"])
def test_a_name_that_is_no_slides_is_refused(name):
    with pytest.raises(UnsupportedMediaType):
        paths.check_suffix(name)


@pytest.fixture
def root(library, png) -> Path:
    """A slide root with a slide, and a secret beside it."""
    (library.root / "ward").mkdir()
    (library.root / "ward" / "a.png").write_bytes(png)
    (library.root.parent / "secret.png").write_bytes(png)
    return library.root


def test_a_path_below_the_root_is_a_slide(library, root):
    slide = library.add_path("ward/a.png", Mpp(0.25, 0.25))
    assert (slide.origin, slide.path, slide.mpp) == ("rooted", "ward/a.png", Mpp(0.25, 0.25))
    library.delete(slide.id)
    assert (root / "ward" / "a.png").exists()


@pytest.mark.parametrize(
    "given", ["../secret.png", "ward/../../secret.png", "/etc/passwd", "~/x.png", "a\0.png", "", ".", "..\\secret.png"]
)
def test_a_path_that_climbs_is_refused(library, root, given):
    with pytest.raises((InvalidParameter, UnsupportedMediaType)):
        library.add_path(given)
    assert library.store.list_slides() == []


def test_links_that_lead_out_are_as_if_they_were_not_there(library, root):
    (root / "link.png").symlink_to(root.parent / "secret.png")
    (root / "folder").symlink_to(root.parent)
    (root / "loop.png").symlink_to(root / "loop.png")
    said = set()
    for given in ("link.png", "folder/secret.png", "loop.png", "nothing.png"):
        with pytest.raises(NotFound) as refused:
            library.add_path(given)
        said.add(str(refused.value))
    assert len(said) == 1


def test_a_link_that_stays_inside_is_followed(library, root):
    (root / "link.png").symlink_to(root / "ward" / "a.png")
    assert library.add_path("link.png").path == "ward/a.png"


def test_a_reader_is_not_led_out_by_what_lies_beside(library, root, data_root):
    shutil.copytree(data_root / "slides" / "dicom_cmu1_small", root / "dicom")
    assert library.add_path("dicom").vendor == "dicom"
    (root / "dicom" / "label.dcm").symlink_to(root.parent / "secret.png")
    for given in ("dicom", "dicom/level-0-frames-0-30.dcm"):
        with pytest.raises(NotFound):
            library.add_path(given)


def test_other_files_below_the_root_are_no_slides(library, root):
    (root / "notes.txt").write_text("x")
    with pytest.raises(UnsupportedMediaType):
        library.add_path("notes.txt")


def test_without_a_root_no_path_is_taken(store, tmp_path):
    with pytest.raises(NotFound):
        Library(store, Files(tmp_path, 10)).add_path("a.png")


def test_a_file_that_changed_or_vanished_is_not_taken_for_the_slide(library, root):
    slide = library.add_path("ward/a.png")
    os.utime(root / "ward" / "a.png", (1, 1))
    with pytest.raises(Conflict):
        library.open(slide)
    (root / "ward" / "a.png").unlink()
    with pytest.raises(NotFound):
        library.open(slide)


def test_a_slide_of_tiles_has_no_pixels(library):
    slide = library.add_blank(100_000, 80_000, None)
    with pytest.raises(NotFound):
        library.open(slide)
    with pytest.raises(InvalidParameter):
        library.add_blank(0, 5, None)


def test_a_real_slide_without_scale_waits_for_one(library, data_root):
    shutil.copy(data_root / "slides" / "TCGA-CR-7395-01A-01-TS1.svs", library.root / "t.svs")
    slide = library.add_path("t.svs")
    with pytest.raises(MppRequired):
        required(slide.mpp)
    assert required(library.store.set_mpp(slide.id, Mpp(0.5, 0.5)).mpp) == Mpp(0.5, 0.5)


def test_retention_deletes_what_is_old_and_idle(library, png):
    old, busy = send(library, png), library.add_blank(600, 480, None)
    library.store.put_tile(old.id, tile_at(0, 0, 90, 90))
    JobBook(library.store.database).add(NewJob(busy.id, Box(0, 0, 9, 9), None, "ink", "1", "a" * 64, Mpp(1, 1)))
    time.sleep(0.01)
    moment = now_ms()
    time.sleep(0.01)
    young = send(library, png)
    assert library.expire(moment) == [old.id]
    assert {slide.id for slide in library.store.list_slides()} == {busy.id, young.id}
    assert [path.parent.name for path in files_of(library)] == [young.id]
    with library.store.database.read() as connection:
        for table in (tiles, payloads):
            assert connection.execute(select(func.count()).select_from(table)).scalar_one() == 0


def test_a_deleted_upload_leaves_no_file(library, png):
    slide = send(library, png)
    library.delete(slide.id)
    assert list(library.files.folder.rglob(f"*{slide.id}*")) == []


def test_what_a_crash_left_is_swept_and_nothing_else(sqlite_library, png):
    library, kept = sqlite_library, send(sqlite_library, png)
    with library.files.begin(".png") as upload:
        upload.write(png)
        upload.finish()  # and here the process dies, before the row
    half = library.files.begin(".png")
    half.write(png)
    assert library.sweep() == 0  # younger than an hour: it may be under way
    assert library.sweep(grace_s=-1) == 2
    assert [path.parent.name for path in files_of(library)] == [kept.id]
    half.__exit__()
