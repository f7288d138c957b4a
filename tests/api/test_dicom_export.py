"""A caller takes the results of a DICOM slide home as DICOM, and is told clearly what cannot be had."""

from __future__ import annotations

import io

import pytest

from app.slides.records import NewSlide
from tests.dicomslide import NEEDS, real
from tests.slides.kept import cut_up

pydicom = pytest.importorskip("pydicom", reason=NEEDS)
pytestmark = pytest.mark.anyio
SR_CLASS = "1.2.840.10008.5.1.4.1.1.88.34"
CLASSES = {"ann": "1.2.840.10008.5.1.4.1.1.91.1", "seg": "1.2.840.10008.5.1.4.1.1.66.7", "sr": SR_CLASS}


def slug(response) -> tuple[int, str]:
    return response.status_code, response.json()["type"].rpartition(":")[2]


@pytest.fixture
async def rooted(serving, tmp_path):
    (tmp_path / "slides").mkdir()
    async with serving(slide_root=tmp_path / "slides") as service:
        yield service


async def filled(service, folder) -> str:
    """Address of a DICOM slide with drawn nuclei."""
    made = await service.http.post("/v1/slides", json={"path": folder.name})
    store = service.app.state.services.slides.library.store
    for tile in cut_up(300, margin=32):
        store.put_tile(made.json()["id"], tile)
    return made.headers["location"]


@pytest.mark.parametrize("kind", ["ann", "seg", "sr"])
async def test_an_export_is_a_dicom_file(rooted, data_root, tmp_path, kind):
    address = await filled(rooted, real(data_root, tmp_path / "slides" / "d", placed=True))
    file = await rooted.http.get(f"{address}/export?format=dicom-{kind}", headers={"Accept-Encoding": "identity"})
    name = f'attachment; filename="slide-{address.rpartition("/")[2]}.dcm"'
    found = (file.status_code, file.headers["content-type"], file.headers["content-disposition"])
    assert found == (200, "application/dicom", name)
    assert pydicom.dcmread(io.BytesIO(file.content)).SOPClassUID == CLASSES[kind]
    headers = {"If-None-Match": file.headers["etag"], "Accept-Encoding": "identity"}
    again = await rooted.http.get(f"{address}/export?format=dicom-{kind}", headers=headers)
    packed = await rooted.http.get(f"{address}/export?format=dicom-{kind}", headers={"Accept-Encoding": "gzip"})
    assert again.status_code == 304
    assert (packed.headers["content-encoding"], packed.content) == ("gzip", file.content)


async def test_an_uploaded_file_is_referred_to_as_well(service, data_root, tmp_path):
    level0 = real(data_root, tmp_path / "d", placed=False) / "level-0-frames-0-30.dcm"
    headers = {"Content-Type": "application/octet-stream"}
    sent = await service.http.post("/v1/slides?filename=a.dcm", content=level0.read_bytes(), headers=headers)
    store = service.app.state.services.slides.library.store
    store.put_tile(sent.json()["id"], cut_up(300)[0])
    file = await service.http.get(f"{sent.headers['location']}/export?format=dicom-ann")
    read = pydicom.dcmread(io.BytesIO(file.content))
    uid = pydicom.dcmread(level0, stop_before_pixels=True).SOPInstanceUID
    assert read.ReferencedImageSequence[0].ReferencedSOPInstanceUID == uid


async def test_what_cannot_be_written_is_refused_before_the_answer_begins(rooted, data_root, tmp_path):
    folder = real(data_root, tmp_path / "slides" / "d", placed=False)
    empty = (await rooted.http.post("/v1/slides", json={"path": "d"})).headers["location"]
    assert slug(await rooted.http.get(f"{empty}/export?format=dicom-sr")) == (404, "not-found")
    address = await filled(rooted, folder)
    refused = await rooted.http.get(f"{address}/export?format=dicom-seg")
    assert slug(refused) == (422, "invalid-image")
    assert "(ann)" in refused.json()["detail"]
    (folder / "level-11-frames-0-1.dcm").unlink()
    assert slug(await rooted.http.get(f"{address}/export?format=dicom-ann")) == (409, "conflict")


async def test_more_outlines_than_one_object_takes_are_too_large(rooted, data_root, tmp_path, monkeypatch):
    monkeypatch.setattr("app.formats.dicomann.MOST_POINTS", 1000)
    address = await filled(rooted, real(data_root, tmp_path / "slides" / "d", placed=True))
    assert slug(await rooted.http.get(f"{address}/export?format=dicom-ann")) == (413, "payload-too-large")


async def test_without_the_extra_its_name_is_told(service, monkeypatch):
    monkeypatch.setattr("app.formats.dicom.find_spec", lambda name: None)
    store = service.app.state.services.slides.library.store
    dicom = store.add_slide(NewSlide(100, 100, None, vendor="dicom"))
    refused = await service.http.get(f"/v1/slides/{dicom.id}/export?format=dicom-ann")
    assert slug(refused) == (501, "missing-extra")
    assert "karyon[dicom]" in refused.json()["detail"]
