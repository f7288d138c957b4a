"""Bytes become upright RGB by fixed rules, or are refused with a reason."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from app.api.decoding import NEAR, announced, decode, header_is_near, upright
from app.nuclei.errors import InvalidImage, PayloadTooLarge, Refusal, UnsupportedMediaType

LIMIT = 1_000_000


def pixels_of(data: bytes) -> np.ndarray:
    return decode(data, LIMIT).pixels


def as_tiff(array: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def test_a_png_comes_back_pixel_for_pixel(noise, encoded):
    np.testing.assert_array_equal(pixels_of(encoded(noise)), noise)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_a_jpeg_decodes_like_opencv(noise, encoded, options):
    cv2 = pytest.importorskip("cv2")
    data = encoded(noise, "jpeg", **options)
    theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(pixels_of(data), theirs)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tile": (32, 32)},
        {"compression": "zlib", "predictor": True},
        {"compression": "lzw", "rowsperstrip": 7},
        {"compression": "packbits"},
        {"bigtiff": True},
        {"byteorder": ">"},
    ],
    ids=str,
)
def test_a_tiff_comes_back_pixel_for_pixel(noise, options):
    np.testing.assert_array_equal(pixels_of(as_tiff(noise, photometric="rgb", **options)), noise)


def test_planes_stored_apart_are_put_together(noise):
    data = as_tiff(noise.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(pixels_of(data), noise)


def test_only_the_first_page_of_a_tiff_is_read(noise):
    data = as_tiff(np.stack([noise, 255 - noise]), photometric="rgb")
    np.testing.assert_array_equal(pixels_of(data), noise)


def test_grey_counted_from_white_keeps_its_transparency():
    stored = np.array([[(0, 255), (255, 255), (255, 0)]], np.uint8)  # white, black, nothing
    data = as_tiff(stored, photometric="miniswhite", extrasamples=["unassalpha"], planarconfig="contig")
    np.testing.assert_array_equal(pixels_of(data), [[(255,) * 3, (0,) * 3, (255,) * 3]])


def test_transparency_is_laid_over_white(encoded):
    rgba = np.array([[(10, 20, 30, 255), (10, 20, 30, 0), (0, 100, 200, 51)]], np.uint8)
    np.testing.assert_array_equal(pixels_of(encoded(rgba)), [[(10, 20, 30), (255, 255, 255), (204, 224, 244)]])


def test_a_grey_image_becomes_rgb(noise, encoded):
    grey = noise[..., 0]
    np.testing.assert_array_equal(pixels_of(encoded(grey)), np.repeat(grey[..., None], 3, axis=2))


def test_a_palette_is_expanded(encoded):
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    image.putpalette([10, 20, 30, 200, 210, 220])
    np.testing.assert_array_equal(
        pixels_of(encoded(image)), [[(10, 20, 30), (200, 210, 220)], [(200, 210, 220), (10, 20, 30)]]
    )


@pytest.mark.parametrize("kind", ["tiff", "png"])
def test_sixteen_bits_keep_their_high_byte(kind, encoded):
    deep = np.array([[0, 255, 256, 65535]], np.uint16)
    np.testing.assert_array_equal(
        pixels_of(as_tiff(deep) if kind == "tiff" else encoded(deep))[0, :, 0], [0, 0, 1, 255]
    )


def test_a_cmyk_jpeg_is_converted(encoded):
    white = Image.new("CMYK", (16, 16), (0, 0, 0, 0))
    assert pixels_of(encoded(white, "jpeg")).min() >= 250


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(noise, encoded, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright_by_pillow = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
    }[orientation]  # fmt: skip
    expected = Image.fromarray(noise)
    expected = expected if upright_by_pillow is None else expected.transpose(upright_by_pillow)
    np.testing.assert_array_equal(pixels_of(encoded(noise, exif=exif)), np.asarray(expected))


@given(st.integers(1, 8))
def test_turning_keeps_every_pixel(orientation):
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    assert sorted(upright(pixels, orientation).ravel()) == sorted(pixels.ravel())


def test_an_ome_tiff_states_its_scale(noise):
    metadata = {"axes": "YXS", "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5}
    assert decode(as_tiff(noise, photometric="rgb", ome=True, metadata=metadata), LIMIT).mpp == (0.25, 0.5)


def test_an_aperio_description_states_its_scale(noise):
    description = "Aperio Image Library v11\n60x40|AppMag = 20|MPP = 0.4990|Left = 1"
    assert decode(as_tiff(noise, photometric="rgb", description=description), LIMIT).mpp == (0.499, 0.499)


@pytest.mark.parametrize("description", ["Aperio|MPP = 0|", "Aperio|MPP = .|", "<Pixels PhysicalSizeX='1'", ""])
def test_a_scale_that_makes_no_sense_is_none(noise, description):
    assert decode(as_tiff(noise, photometric="rgb", description=description, metadata=None), LIMIT).mpp is None


def test_a_printers_resolution_is_no_scale(noise, encoded):
    assert decode(encoded(noise, "jpeg", dpi=(300, 300)), LIMIT).mpp is None
    assert decode(as_tiff(noise, photometric="rgb", resolution=(4000, 4000)), LIMIT).mpp is None


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
def test_a_truncated_image_is_refused_not_half_decoded(noise, encoded, kind, share):
    whole = as_tiff(noise, photometric="rgb") if kind == "tiff" else encoded(noise, kind)
    with pytest.raises(InvalidImage):
        decode(whole[: int(len(whole) * share)], LIMIT)


def test_a_damaged_png_is_refused(noise, encoded):
    data = bytearray(encoded(noise))
    data[len(data) // 2] ^= 1
    with pytest.raises(InvalidImage, match="checksum"):
        decode(bytes(data), LIMIT)


def test_a_png_whose_data_end_early_inside_whole_chunks_is_refused():
    rows = zlib.compress(bytes(10 * (1 + 3 * 100)))  # 10 rows of the 100 announced
    header = struct.pack(">IIBBBBB", 100, 100, 8, 2, 0, 0, 0)
    with pytest.raises(InvalidImage):
        decode(png_of(header, rows), LIMIT)


def png_of(header: bytes, data: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def huge_png() -> bytes:
    return png_of(struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0), b"")


def huge_jpeg() -> bytes:
    frame = struct.pack(">HBHHB", 17, 8, 65_535, 65_535, 3) + bytes((1, 17, 0, 2, 17, 1, 3, 17, 1))
    return b"\xff\xd8\xff\xc0" + frame + b"\xff\xd9"


def huge_tiff() -> bytes:
    tags = [(256, 100_000), (257, 100_000), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 100_000), (279, 9)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return struct.pack("<4sIH", b"II*\0", 8, len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_header_tells_the_scale_of_the_upright_image(noise, orientation):
    metadata = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}
    turned = [(274, "H", 1, orientation, True)]
    data = as_tiff(noise[:9], photometric="rgb", ome=True, metadata=metadata, extratags=turned)
    whole = decode(data, LIMIT)
    told = announced(data, LIMIT)
    assert told.mpp == whole.mpp == ((0.5, 0.25) if orientation >= 5 else (0.25, 0.5))
    assert (told.size.height, told.size.width) == whole.pixels.shape[:2]


@pytest.mark.parametrize(
    ("kind", "near"),
    [("png", True), ("jpeg", True), ("jpeg with a profile", False), ("fill bytes", False), ("tiff", False)],
)
def test_a_header_is_near_if_few_bytes_have_to_be_looked_at(noise, encoded, kind, near):
    jpeg = encoded(noise, "jpeg")
    files = {
        "png": encoded(noise),
        "jpeg": jpeg,
        "jpeg with a profile": jpeg[:2] + b"\xff\xe2\x10\x00" + bytes(0x1000 - 2) + jpeg[2:],
        "fill bytes": jpeg[:2] + b"\xff" * NEAR + jpeg[2:],
        "tiff": as_tiff(noise, photometric="rgb"),
    }
    assert header_is_near(files[kind]) is near
    assert announced(files[kind], LIMIT).size == (noise.shape[1], noise.shape[0])


@pytest.mark.parametrize("make", [huge_png, huge_jpeg, huge_tiff])
def test_a_huge_header_is_refused_before_anything_is_allocated(make):
    with pytest.raises(PayloadTooLarge):
        decode(make(), LIMIT)


def test_many_large_tiles_over_few_pixels_are_refused():
    data = bytearray(as_tiff(np.zeros((1, 400_000), np.uint8), tile=(16, 16), compression="zlib"))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        height = file.pages.first.tags["TileLength"]
        struct.pack_into("<H", data, height.valueoffset, 60_000)
    with pytest.raises((PayloadTooLarge, InvalidImage)):
        decode(bytes(data), LIMIT)


@pytest.mark.parametrize(
    ("array", "options"),
    [
        (np.zeros((8, 8), np.float32), {}),
        (np.zeros((8, 8, 5), np.uint8), {"photometric": "rgb"}),
        (np.zeros((3, 8, 8), np.uint8), {"photometric": "minisblack", "ome": True, "metadata": {"axes": "CYX"}}),
        (np.zeros((8, 8, 3), np.uint8), {"photometric": "rgb", "compression": "zstd"}),
    ],
    ids=["float", "five channels", "channels apart", "compression"],
)
def test_a_tiff_that_is_no_rgb_is_named_and_refused(array, options):
    with pytest.raises(UnsupportedMediaType, match="TIFF"):
        decode(as_tiff(array, **options), LIMIT)


@pytest.mark.parametrize("data", [b"hello, this is a text", b"GIF89a", b"\x89PN", b"%PDF-1.7"])
def test_other_formats_are_refused(data):
    with pytest.raises(UnsupportedMediaType):
        decode(data, LIMIT)


def test_nothing_is_an_invalid_image():
    with pytest.raises(InvalidImage, match="empty"):
        decode(b"", LIMIT)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["png", "jpeg", "tiff", "tiled"]),
    places=st.lists(st.tuples(st.floats(0, 0.9999), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_a_corrupt_image_is_decoded_or_refused_and_never_a_fault(kind, places, noise, encoded):
    tiff = (
        {"photometric": "rgb", "compression": "zlib", "tile": (16, 16)} if kind == "tiled" else {"photometric": "rgb"}
    )
    data = bytearray(as_tiff(noise, **tiff) if kind in ("tiff", "tiled") else encoded(noise, kind))
    for place, value in places:
        data[int(place * len(data))] = value
    with suppress(Refusal):
        assert decode(bytes(data), LIMIT).pixels.shape[2] == 3
