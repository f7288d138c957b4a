"""Forms are taken apart in memory."""

from __future__ import annotations

import pytest

from app.api.uploads import image_bytes, parse_form
from app.nuclei.errors import InvalidImage, InvalidParameter, UnsupportedMediaType

FORM = "multipart/form-data; boundary=xyz"


def form(*parts: tuple[str, str, bytes]) -> bytes:
    written = b""
    for name, kind, data in parts:
        head = f'--xyz\r\nContent-Disposition: form-data; name="{name}"; filename="a"\r\nContent-Type: {kind}\r\n\r\n'
        written += head.encode() + data + b"\r\n"
    return written + b"--xyz--\r\n"


def test_a_field_comes_out_byte_for_byte():
    data = bytes(range(256)) * 40 + b"\r\n--xy"
    assert image_bytes(form(("note", "text/plain", b"hello"), ("image", "image/png", data)), FORM) == data


def test_parts_keep_their_order_names_and_types():
    parts = parse_form(form(("image", "IMAGE/PNG; x=y", b"1"), ("other", "text/plain", b"2")), FORM)
    assert [(p.name, p.media_type, b"".join(p.chunks)) for p in parts] == [
        ("image", "image/png", b"1"),
        ("other", "text/plain", b"2"),
    ]


@pytest.mark.parametrize("fields", [[], [("image", "image/png", b"1")] * 2])
def test_a_form_needs_exactly_one_image(fields):
    with pytest.raises(InvalidParameter):
        image_bytes(form(("note", "text/plain", b"hello"), *fields), FORM)


def test_a_field_that_is_declared_as_text_is_refused():
    with pytest.raises(UnsupportedMediaType):
        image_bytes(form(("image", "text/plain", b"1")), FORM)


@pytest.mark.parametrize(
    ("body", "kind"),
    [(form(("image", "image/png", b"1"))[:-9], FORM), (b"--abc\r\n", FORM), (b"", FORM), (b"1", "multipart/form-data")],
    ids=["cut", "other boundary", "empty", "no boundary"],
)
def test_a_broken_form_is_refused(body, kind):
    with pytest.raises(InvalidImage):
        image_bytes(body, kind)


@pytest.mark.parametrize("name", ["mpp", "profile", "model"])
def test_a_parameter_sent_as_a_field_is_refused_and_not_ignored(name):
    with pytest.raises(InvalidParameter, match="parameter of the address") as refusal:
        image_bytes(form(("image", "image/png", b"1"), (name, "text/plain", b"0.25")), FORM)
    assert refusal.value.name == name
