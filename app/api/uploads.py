"""How does the image come out of a request's body: as the body itself, or as the field `image` of a form?

Forms are taken apart in memory: the framework's parser would spool larger files, patients' tissue, to the disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.nuclei.errors import InvalidImage, InvalidParameter, UnsupportedMediaType

IMAGE_TYPES = ("image/png", "image/jpeg", "image/tiff")
FORM = "multipart/form-data"
FIELD = "image"
UNDECLARED = ("", "application/octet-stream")  # what form clients write for a file they do not know


@dataclass
class Part:
    """One field of a form: its name, declared media type and bytes."""

    name: str = ""
    media_type: str = ""
    chunks: list[bytes] = field(default_factory=list)


def check_declared(content_type: str | None) -> None:
    """Refuse a body of the wrong kind before it is read; a body without a declared type is judged by its bytes.

    Raises:
        UnsupportedMediaType: if it is declared as anything but an image we read or a form.
    """
    declared = media_type(content_type)
    if declared and declared not in (*IMAGE_TYPES, FORM):
        raise UnsupportedMediaType(f"Content-Type must be {', '.join(IMAGE_TYPES)} or {FORM}")


def media_type(content_type: str | None) -> str:
    """The media type of a `Content-Type` header in lower case, without parameters; empty if there is none."""
    return (content_type or "").partition(";")[0].strip().lower()


def image_bytes(body: bytes, content_type: str | None) -> bytes:
    """The image in a body.

    Raises:
        InvalidParameter: if a form has no field `image`, or several, or a parameter as a field.
        UnsupportedMediaType: if that field is declared as something else.
        InvalidImage: if the form is broken.
    """
    if media_type(content_type) != FORM:
        return body
    parts = parse_form(body, content_type or "")
    refuse_parameters(parts)
    found = [part for part in parts if part.name == FIELD]
    if len(found) != 1:
        raise InvalidParameter(FIELD, f"the form needs one field called image; it has {len(found) or 'none'}")
    check_part(found[0])
    return b"".join(found[0].chunks)


def refuse_parameters(parts: list[Part]) -> None:
    """Refuse parameters that are sent as fields: ignored, `mpp` there would mean another scale than the caller's.

    Raises:
        InvalidParameter: naming the first one.
    """
    for part in parts:
        if part.name in ("mpp", "profile", "model"):
            raise InvalidParameter(part.name, f"{part.name} is a parameter of the address (?{part.name}=), not a field")


def check_part(part: Part) -> None:
    """Refuse a field that is declared as anything but an image we read.

    Raises:
        UnsupportedMediaType: naming those we read.
    """
    if part.media_type not in (*UNDECLARED, *IMAGE_TYPES):
        raise UnsupportedMediaType(f"the field image must be {', '.join(IMAGE_TYPES)}")


def parse_form(body: bytes, content_type: str) -> list[Part]:
    """All parts of a `multipart/form-data` body, in order (RFC 7578).

    Raises:
        InvalidImage: if the boundary is missing or the body does not keep to it.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise InvalidImage("the form's Content-Type names no boundary")
    collector = _Collector()
    try:
        parser = MultipartParser(boundary, collector.callbacks())  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InvalidImage("the form is broken") from error
    if not collector.complete:
        raise InvalidImage("the form is truncated")
    return collector.parts


class _Collector:
    """Receives the parser's events and keeps the parts."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.complete = False
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": lambda: self.parts.append(Part()),
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_part_data": lambda data, start, end: self.parts[-1].chunks.append(data[start:end]),
            "on_end": self._end,
        }

    def _end_header(self) -> None:
        name, value = (bytes(half) for half in self._header)
        self._header = (bytearray(), bytearray())
        if name.lower() == b"content-disposition":
            self.parts[-1].name = parse_options_header(value)[1].get(b"name", b"").decode(errors="replace")
        elif name.lower() == b"content-type":
            self.parts[-1].media_type = media_type(value.decode("latin-1"))

    def _end(self) -> None:
        self.complete = True
