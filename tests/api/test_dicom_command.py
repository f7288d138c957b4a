"""`karyon dicom` analyses a DICOM slide, writes DICOM objects, and sends them to the archive of the settings alone."""

from __future__ import annotations

import io
import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import tifffile

from app import cli
from app.nuclei.errors import NotStored
from app.settings import load_settings
from app.slides.reading import chosen
from app.slides.running import Run
from app.slides.store import Store
from tests.dicomslide import NEEDS, real
from tests.drawn import draw_tissue

pydicom = pytest.importorskip("pydicom", reason=NEEDS)
ALL = ["ann.dcm", "seg.dcm", "sr.dcm"]


@pytest.fixture
def karyon(monkeypatch, onnx_store, tmp_path, data_root):
    """Run the command with a small model on a copy of the real slide; its exit status."""
    for name, value in {"MODEL_STORE": onnx_store, "MODEL": "dark", "THREADS": 1, "SLIDE_WINDOW": 800}.items():
        monkeypatch.setenv(f"KARYON_{name}", str(value))
    real(data_root, tmp_path / "slide", placed=True)

    def run(*arguments, out="out", slide="slide"):
        return cli.main(["dicom", str(tmp_path / slide), "-o", str(tmp_path / out), *arguments])

    return run


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_slide_becomes_three_objects_and_nothing_else_is_left(karyon, tmp_path, capsys):
    assert karyon() == cli.OK
    ann, _, report = (pydicom.dcmread(tmp_path / "out" / name) for name in ALL)
    counted = sum(group.NumberOfAnnotations for group in ann.AnnotationGroupSequence)
    assert f"{counted} nuclei" in capsys.readouterr().err
    assert counted > 100
    assert report.Modality == "SR"
    assert (names(tmp_path), names(tmp_path / "out")) == (["out", "slide"], ALL)


def test_only_the_kinds_that_are_wanted_are_written(karyon, tmp_path):
    assert karyon("--kind", "sr,ann", slide="slide/level-0-frames-0-30.dcm") == cli.OK
    assert names(tmp_path / "out") == ["ann.dcm", "sr.dcm"]


def test_an_interrupted_command_goes_on_where_it_was(karyon, tmp_path, third_interrupted):
    seen = third_interrupted
    assert karyon() == cli.INTERRUPTED
    assert ".out.karyon" in names(tmp_path)
    begun = len(seen)
    assert karyon() == cli.OK
    resumed = len(seen) - begun
    assert names(tmp_path / "out") == ALL
    assert karyon(out="again") == cli.OK
    assert resumed < len(seen) - begun - resumed


def test_a_slide_without_nuclei_has_no_annotations(karyon, tmp_path, monkeypatch, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ann.dcm").write_bytes(b"of an earlier run")
    put = Store.put_tile

    def put_nothing(self, slide_id, tile):
        return put(self, slide_id, replace(tile, nuclei=chosen(tile.nuclei, np.arange(0))))

    monkeypatch.setattr(Store, "put_tile", put_nothing)
    assert karyon() == cli.OK
    assert names(tmp_path / "out") == ["seg.dcm", "sr.dcm"]
    assert "no ann.dcm" in capsys.readouterr().err


def test_what_cannot_be_written_is_refused_before_the_work(karyon, tmp_path, monkeypatch, capsys, data_root):
    monkeypatch.setattr(Run, "work", lambda self: pytest.fail("the work was begun"))
    tifffile.imwrite(tmp_path / "slide.tif", draw_tissue(300, 300), tile=(256, 256), photometric="rgb")
    real(data_root, tmp_path / "unplaced", placed=False)
    assert karyon(slide="slide.tif") == cli.REFUSED
    assert karyon(slide="nothing") == cli.REFUSED
    assert karyon(slide="unplaced") == cli.REFUSED
    assert "TotalPixelMatrixOriginSequence" in capsys.readouterr().err
    monkeypatch.setattr("app.formats.dicom.find_spec", lambda name: None)
    assert karyon() == cli.REFUSED
    assert "karyon[dicom]" in capsys.readouterr().err
    assert not [name for name in names(tmp_path) if name.startswith((".", "out"))]


def test_wrong_words_are_refused(karyon, tmp_path, capsys):
    for arguments in (["--kind", "ann,pdf"], ["--kind", ""], ["--mpp", "0"]):
        with pytest.raises(SystemExit, match="2"):
            karyon(*arguments)
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="2"):
        karyon(out="file")
    assert karyon("--store") == cli.USAGE
    assert "KARYON_DICOMWEB_URL" in capsys.readouterr().err


@contextmanager
def archive(answer):
    """Address of a small archive, and what it received; `answer` gives status, type and body for an object."""
    received = []

    class Archive(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"".join(self.chunks())
            made = pydicom.dcmread(io.BytesIO(body[body.index(b"\r\n\r\n") + 4 :]))
            received.append((self.path, self.headers["Authorization"], made.Modality))
            status, kind, said = answer(made)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def chunks(self):
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Archive)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/dicom-web/", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def told(status, sequence, **values):
    """An archive's answer that lists the object in a sequence."""

    def answer(made):
        item = {"00081155": {"vr": "UI", "Value": [made.SOPInstanceUID]}} | values
        return status, "application/dicom+json", json.dumps({sequence: {"vr": "SQ", "Value": [item]}}).encode()

    return answer


TAKEN = told(200, "00081199")
REFUSALS = {
    "reason A700": told(202, "00081198", **{"00081197": {"vr": "US", "Value": [0xA700]}}),
    "did not confirm": lambda made: (200, "text/html", b"thank you"),
    "cannot be read": lambda made: (200, "application/dicom+xml", b"<thank you"),
    "answered 401": lambda made: (401, "text/plain", b""),
    "answered 503": lambda made: (503, "text/plain", b""),
}


def test_objects_are_sent_to_the_archive_of_the_settings(karyon, monkeypatch, capsys):
    with archive(TAKEN) as (address, received):
        monkeypatch.setenv("KARYON_DICOMWEB_URL", address)
        monkeypatch.setenv("KARYON_DICOMWEB_TOKEN", "secret")
        assert karyon("--store") == cli.OK
    assert received == [("/dicom-web/studies", "Bearer secret", modality) for modality in ("ANN", "SEG", "SR")]
    assert "the archive took ann.dcm, seg.dcm, sr.dcm" in capsys.readouterr().err


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An object to send."""
    from app.formats.dicomparts import encoded
    from app.formats.dicomsr import report
    from tests.dicomslide import origin

    file = tmp_path_factory.mktemp("made") / "sr.dcm"
    with encoded(report(origin(), {1: 2}, 1.0)) as written:
        file.write_bytes(written.read())
    return file


@pytest.mark.parametrize("reason", REFUSALS)
def test_an_archive_that_does_not_take_an_object_is_told(made, reason):
    from app.formats.dicomweb import send

    with archive(REFUSALS[reason]) as (address, received), pytest.raises(NotStored, match=reason):
        send(made, address)
    assert [authorization for _, authorization, _ in received] == [None]


def test_an_answer_with_a_charset_is_read(made):
    from app.formats.dicomweb import send

    with archive(lambda one: (200, "application/dicom+json; charset=utf-8", TAKEN(one)[2])) as (address, received):
        send(made, address)
    assert [modality for _, _, modality in received] == ["SR"]


def test_an_archive_that_is_not_there_is_told(karyon, tmp_path, monkeypatch, capsys):
    with archive(TAKEN) as (address, _):
        pass
    monkeypatch.setenv("KARYON_DICOMWEB_URL", address)
    assert karyon("--kind", "sr", "--store") == cli.NOT_STORED
    assert names(tmp_path / "out") == ["sr.dcm"]
    assert "not reached" in capsys.readouterr().err


def test_a_token_is_not_sent_where_others_can_read_it():
    for address in ("http://pacs.example.org/", "https://pacs.example.org/", "http://127.0.0.1:8042/"):
        given = {"dicomweb_url": address, "dicomweb_token": "secret"}
        if address == "http://pacs.example.org/":
            with pytest.raises(SystemExit, match="https") as refused:
                load_settings({}, **given)
            assert "secret" not in str(refused.value)
        else:
            assert "secret" not in repr(load_settings({}, **given))
