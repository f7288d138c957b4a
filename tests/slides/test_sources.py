"""Readers on real slides, on files written here, and on hostile ones."""

from __future__ import annotations

import io
import shutil
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from app.nuclei.errors import InvalidImage, NotFound, PayloadTooLarge, UnsupportedMediaType
from app.slides import plain, tiffs
from app.slides.opening import open_source
from app.slides.openslides import detect
from app.slides.sources import Level, credible_mpp, pyramid
from tests.drawn import draw_tissue

TISSUE = draw_tissue(700, 900)
OME = {"axes": "YXS", "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.26, "PhysicalSizeYUnit": "µm"}


@pytest.fixture
def slides_root(data_root) -> Path:
    if not (data_root / "slides").is_dir():
        pytest.skip("KARYON_DATA has no slides")
    return data_root / "slides"


def whole(source, level=0):
    return source.read(level, 0, 0, source.levels[level].width, source.levels[level].height)


@pytest.mark.parametrize(
    ("name", "vendor", "size", "levels", "mpp"),
    [
        ("CMU-1-Small-Region.svs", "aperio", (2220, 2967), 1, (0.499, 0.499)),
        ("TCGA-CR-7395-01A-01-TS1.svs", "aperio", (4443, 3567), 2, None),
        ("MoNuSAC_A9K0_1.svs", "aperio", (1307, 1153), 1, (0.19448, 0.19448)),
        ("dicom_cmu1_small", "dicom", (2220, 2967), 12, (0.499, 0.499)),
        ("dicom_cmu1_small/level-3-frames-0-1.dcm", "dicom", (2220, 2967), 12, (0.499, 0.499)),
    ],
)
def test_a_real_slide_says_what_it_is(slides_root, name, vendor, size, levels, mpp):
    with open_source(slides_root / name) as source:
        assert (source.vendor, source.levels[0], len(source.levels)) == (vendor, Level(*size, 1.0, 1.0), levels)
        assert source.mpp == (pytest.approx(mpp) if mpp else None)


@pytest.mark.parametrize(("name", "level"), [("TCGA-CR-7395-01A-01-TS1.svs", 0), ("TCGA-CR-7395-01A-01-TS1.svs", 1)])
def test_any_box_of_a_real_slide_is_that_part_of_the_whole(slides_root, name, level):
    with open_source(slides_root / name) as source:
        all_of_it = whole(source, level)
        for x, y, width, height in [(0, 0, 1, 1), (1501, 901, 333, 517), (255, 511, 514, 3)]:
            np.testing.assert_array_equal(
                source.read(level, x, y, width, height), all_of_it[y : y + height, x : x + width]
            )
        assert len(np.unique(all_of_it)) > 200


def test_a_dicom_slide_shows_what_the_svs_shows(slides_root):
    with (
        open_source(slides_root / "CMU-1-Small-Region.svs") as svs,
        open_source(slides_root / "dicom_cmu1_small") as dcm,
    ):
        boxes = [each.read(0, 700, 900, 400, 400).astype(int) for each in (svs, dcm)]
    # One was compressed from the other, as YCbCr that the file calls RGB.
    assert np.abs(boxes[0] - boxes[1]).mean() < 8
    assert np.abs((boxes[0] - boxes[1]).mean(axis=(0, 1))).max() < 1


def test_label_and_macro_are_never_read(slides_root, tmp_path):
    copy = tmp_path / "slide.svs"
    shutil.copyfile(slides_root / "CMU-1-Small-Region.svs", copy)
    with tifffile.TiffFile(copy) as file:
        private = [s.keyframe for s in file.series if s.name in ("Label", "Macro", "Thumbnail")]
        places = [each for page in private for each in zip(page.dataoffsets, page.databytecounts, strict=True)]
    assert len(private) == 3
    with copy.open("r+b") as file:
        for offset, count in places:
            file.seek(offset)
            file.write(b"\xff" * count)
    with open_source(slides_root / "CMU-1-Small-Region.svs") as sound, open_source(copy) as spoilt:
        np.testing.assert_array_equal(whole(sound), whole(spoilt))


def test_no_reader_asks_for_associated_images():
    readers = Path(tiffs.__file__).parent.glob("*.py")
    assert [path.name for path in readers if "associated_images" in path.read_text()] == []


WAYS = {
    "tiled jpeg": {"tile": (256, 256), "compression": "jpeg", "photometric": "rgb"},
    "strips, deflate": {"rowsperstrip": 37, "compression": "deflate", "predictor": True},
    "plain strips": {"rowsperstrip": 64},
    "one strip": {},
    "big, lzw": {"bigtiff": True, "compression": "lzw", "tile": (128, 240)},
    "ome": {"tile": (256, 256), "metadata": OME, "photometric": "rgb"},
    "ome jpeg 2000": {"tile": (256, 256), "metadata": OME, "photometric": "rgb", "compression": "jpeg2000"},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_tiff_of_any_layout_gives_its_pixels(tmp_path, way):
    path = tmp_path / ("slide.ome.tif" if "ome" in way else "slide.tif")
    tifffile.imwrite(path, TISSUE, **WAYS[way])
    with open_source(path) as source:
        box = source.read(0, 301, 199, 444, 402).astype(int)
        assert source.mpp == (pytest.approx((0.25, 0.26)) if "ome" in way else None)
    allowed = 40 if "jpeg" in way and "2000" not in way else 0
    assert np.abs(box - TISSUE[199:601, 301:745]).max() <= allowed


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (TISSUE.astype(np.uint16) * 257, TISSUE),
        (TISSUE[..., 0], np.repeat(TISSUE[..., :1], 3, axis=2)),
        (TISSUE[..., 0].astype(np.uint16) * 256 + 7, np.repeat(TISSUE[..., :1], 3, axis=2)),
    ],
    ids=["16 bit", "grey", "grey 16 bit"],
)
def test_a_tiff_of_other_samples_is_brought_to_rgb(tmp_path, stored, shown):
    tifffile.imwrite(tmp_path / "slide.tif", stored, rowsperstrip=50)
    with open_source(tmp_path / "slide.tif") as source:
        np.testing.assert_array_equal(whole(source), shown)


def test_the_pyramid_of_an_ome_tiff_is_found(tmp_path):
    with tifffile.TiffWriter(tmp_path / "slide.ome.tif") as file:
        options = {"tile": (256, 256), "photometric": "rgb"}
        file.write(TISSUE, subifds=2, metadata=OME, **options)
        for step in (2, 4):
            file.write(TISSUE[::step, ::step], subfiletype=1, **options)
    with open_source(tmp_path / "slide.ome.tif") as source:
        assert source.levels == pyramid([(900, 700), (450, 350), (225, 175)])
        np.testing.assert_array_equal(source.read(2, 10, 20, 100, 90), TISSUE[::4, ::4][20:110, 10:110])


def test_an_ome_tiff_that_begins_with_a_label_shows_its_tissue(tmp_path):
    with tifffile.TiffWriter(tmp_path / "slide.ome.tif") as file:
        file.write(np.zeros((64, 64, 3), np.uint8), metadata={"axes": "YXS", "Name": "label image"}, photometric="rgb")
        file.write(TISSUE, metadata=OME | {"Name": "slide"}, photometric="rgb", rowsperstrip=64)
    with open_source(tmp_path / "slide.ome.tif") as source:
        assert (source.levels[0][:2], source.mpp) == ((900, 700), pytest.approx((0.25, 0.26)))


@pytest.mark.parametrize(("kind", "allowed"), [("png", 0), ("jpeg", 60)])
def test_a_plain_image_is_a_slide_without_scale(tmp_path, kind, allowed):
    Image.fromarray(TISSUE).save(tmp_path / f"slide.{kind}", dpi=(300, 300))
    with open_source(tmp_path / f"slide.{kind}") as source:
        assert (source.vendor, source.mpp) == (kind, None)
        assert np.abs(source.read(0, 5, 7, 90, 80).astype(int) - TISSUE[7:87, 5:95]).max() <= allowed


def test_a_plain_image_stands_upright_and_on_white(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    clear = np.dstack([TISSUE, np.zeros(TISSUE.shape[:2], np.uint8)])
    Image.fromarray(clear).save(tmp_path / "slide.png", exif=turned)
    with open_source(tmp_path / "slide.png") as source:
        assert source.levels[0][:2] == (700, 900)
        assert whole(source).min() == 255


def test_a_plain_image_too_large_to_decode_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(plain, "MAX_PIXELS", 1000)
    Image.fromarray(TISSUE).save(tmp_path / "slide.png")
    with pytest.raises(PayloadTooLarge, match="tiled TIFF"):
        open_source(tmp_path / "slide.png")


def test_many_threads_read_the_same_pixels(tmp_path):
    tifffile.imwrite(tmp_path / "slide.tif", TISSUE, rowsperstrip=37, compression="deflate")
    with open_source(tmp_path / "slide.tif") as source, ThreadPoolExecutor(8) as pool:
        boxes = list(pool.map(lambda i: source.read(0, i, 10 * i, 300, 100), range(50)))
    assert all(np.array_equal(box, TISSUE[10 * i : 10 * i + 100, i : i + 300]) for i, box in enumerate(boxes))


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (0, 0, 0, 5), (896, 0, 5, 5), (0, 699, 1, 2)])
def test_a_box_that_sticks_out_is_an_error(tmp_path, box):
    tifffile.imwrite(tmp_path / "slide.tif", TISSUE)
    with open_source(tmp_path / "slide.tif") as source, pytest.raises(ValueError, match="inside"):
        source.read(0, *box)


@pytest.mark.parametrize(("x", "y"), [("352.8", "352.8"), ("0", "0.5"), ("nan", "1"), (None, None), ("0.5", "half")])
def test_a_scale_that_no_microscope_gives_counts_as_none(x, y):
    assert credible_mpp(x, y) is None


def tiff(width: int, height: int, tile: tuple[int, int], offset: int = 8, count: int = 100) -> bytes:
    """A TIFF that announces one RGB image in one tile."""
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 2), (277, 3, 1, 3)]
    tags += [(322, 4, 1, tile[0]), (323, 4, 1, tile[1]), (324, 4, 1, offset), (325, 4, 1, count)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4 + 200)


def write_tile_that_grows(path: Path) -> None:
    inside = io.BytesIO()
    Image.new("RGB", (4096, 4096)).save(inside, "jpeg")
    tifffile.imwrite(path, TISSUE[:256, :256], tile=(256, 256), compression="jpeg", photometric="rgb", metadata=OME)
    with tifffile.TiffFile(path) as file:
        tags = file.pages.first.tags
        places = tags["TileOffsets"].valueoffset, tags["TileByteCounts"].valueoffset
    data = bytearray(path.read_bytes())
    for at, value in zip(places, (len(data), len(inside.getvalue())), strict=True):
        struct.pack_into("<I", data, at, value)
    path.write_bytes(data + inside.getvalue())


HOSTILE = {
    "10 GB in one tile": (tiff(60_000, 60_000, (60_000, 60_000)), PayloadTooLarge),
    "4 Gpx of tiles that are not there": (tiff(65_536, 65_536, (256, 256)), InvalidImage),
    "a tile behind the end": (tiff(256, 256, (256, 256), offset=10**6, count=256 * 256 * 3), InvalidImage),
    "no pixels": (tiff(0, 0, (256, 256)), InvalidImage),
    "a directory that is its own next": (b"II*\0" + struct.pack("<IHI", 8, 0, 8), InvalidImage),
    "a signature and no more": (b"II*\0", InvalidImage),
    "empty": (b"", InvalidImage),
    "text": (b"this is no slide", UnsupportedMediaType),
    "half a PNG": (b"\x89PNG\r\n\x1a\n" + bytes(40), InvalidImage),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(tmp_path, name):
    content, refusal = HOSTILE[name]
    path = tmp_path / "slide.tif"
    path.write_bytes(content)
    with pytest.raises(refusal) as refused:
        open_source(path).read(0, 0, 0, 1, 1)
    assert str(tmp_path) not in str(refused.value)


def test_an_index_of_other_files_is_no_slide_whatever_its_name(tmp_path):
    (tmp_path / "slides").mkdir()
    path = tmp_path / "slides" / "slide.svs"
    for name in ("elsewhere", "map"):
        Image.new("RGB", (512, 512)).save(tmp_path / f"{name}.jpg", subsampling=0, restart_marker_blocks=16)
    lines = ["[Virtual Microscope Specimen]", "NoLayers=1", "NoJpegColumns=1", "NoJpegRows=1", "SourceLens=20"]
    lines += [
        "ImageFile=../elsewhere.jpg",
        "MapFile=../map.jpg",
        "OptimisationFile=",
        "PhysicalWidth=1",
        "PhysicalHeight=1",
    ]
    path.write_text("\n".join(lines) + "\n")
    assert detect(path) == "hamamatsu"  # OpenSlide would open it, and the JPEG with it
    with pytest.raises(UnsupportedMediaType):
        open_source(path)


@pytest.mark.parametrize("name", ["slide.ome.tif", "slide.tif"])
def test_channels_in_separate_planes_are_not_taken_for_grey_tissue(tmp_path, name):
    metadata = OME | {"axes": "CYX"} if "ome" in name else {"axes": "CYX"}
    tifffile.imwrite(tmp_path / name, TISSUE.transpose(2, 0, 1), photometric="minisblack", metadata=metadata)
    with pytest.raises(UnsupportedMediaType, match="3 channels in separate planes"):
        open_source(tmp_path / name)


def test_a_jpeg_larger_than_its_tile_is_not_decoded(tmp_path):
    write_tile_that_grows(tmp_path / "slide.ome.tif")
    with open_source(tmp_path / "slide.ome.tif") as source, pytest.raises(InvalidImage):
        source.read(0, 0, 0, 256, 256)


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs", "MoNuSAC_A9K0_1.svs"])
def test_a_truncated_slide_is_refused_at_once(slides_root, tmp_path, name, keep):
    data = (slides_root / name).read_bytes()
    (tmp_path / "slide.svs").write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(InvalidImage):
        open_source(tmp_path / "slide.svs")


def test_damaged_pixels_are_refused(slides_root, tmp_path):
    copy = tmp_path / "slide.svs"
    shutil.copyfile(slides_root / "CMU-1-Small-Region.svs", copy)
    with tifffile.TiffFile(copy) as file:
        offset, count = file.pages.first.dataoffsets[20], file.pages.first.databytecounts[20]
    with copy.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(count))
    with open_source(copy) as source, pytest.raises(InvalidImage):
        whole(source)


def test_a_file_that_vanished_is_not_found(tmp_path):
    with pytest.raises(NotFound):
        open_source(tmp_path / "gone.svs")


def test_a_folder_without_dicom_is_refused(tmp_path):
    with pytest.raises(UnsupportedMediaType):
        open_source(tmp_path)
