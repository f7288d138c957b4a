from __future__ import annotations

import csv
import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
from skimage.color import rgb2hed
from skimage.measure import regionprops_table

from app.formats import table

HEADER = (
    "id,class,x,y,probability,p_neutrophil,p_epithelial,p_lymphocyte,p_plasma,p_eosinophil,p_connective,"
    "area_px,area_um2,perimeter_um,equivalent_diameter_um,major_axis_um,minor_axis_um,eccentricity,solidity,"
    "circularity,mean_diameter_px,mean_diameter_um,haematoxylin_mean,eosin_mean,touches_border,uncertain"
)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (180, 260, 3), np.uint8)


def rows(text):
    return list(csv.DictReader(io.StringIO(text.decode("utf-8"))))


def disc(draw, radius=40, mpp=0.5, size=None):
    labels = np.zeros((120, 120), np.int32)
    cv2.circle(labels, (60, 60), radius, 1, -1)
    return draw(labels, mpp=mpp, size=size)


def test_the_header_is_fixed_and_comes_even_without_nuclei(nothing, context):
    assert table.encode(nothing, context).decode() == HEADER + "\n"


def test_there_is_a_row_for_each_nucleus_with_every_cell_in_place(many, context, image):
    lines = table.encode(many, context, image).decode().splitlines()
    assert lines[0] == HEADER
    assert {line.count(",") for line in lines} == {HEADER.count(",")}
    assert len(lines) == 1 + len(many.nuclei)


def test_ids_classes_and_centroids_are_those_of_the_other_formats(few, context):
    read = rows(table.encode(few, context))
    assert "".join(row["id"] for row in read) == context.nucleus_ids(few).tobytes().decode()
    assert [row["class"] for row in read] == ["epithelial", "epithelial", "lymphocyte", "epithelial", "connective"]
    assert (read[0]["x"], read[0]["y"]) == ("30.50", "30.50")


def test_figures_are_those_of_scikit_image(many):
    wanted = {
        "area_px": "area",
        "perimeter_um": "perimeter_crofton",
        "equivalent_diameter_um": "equivalent_diameter_area",
    }
    theirs = regionprops_table(many.grid, properties=tuple(wanted.values()))
    ours = table.numbers(many)
    for name, theirs_name in wanted.items():
        um = 0.5 if name.endswith("um") else 1
        np.testing.assert_allclose(ours[name], theirs[theirs_name] * um, rtol=1e-9, err_msg=name)


def test_a_disc_is_round_convex_and_as_wide_as_it_was_drawn(draw):
    figures = {name: float(column[0]) for name, column in table.numbers(disc(draw)).items()}
    assert figures["equivalent_diameter_um"] == pytest.approx(40, abs=0.3)
    assert figures["perimeter_um"] == pytest.approx(np.pi * 40, rel=0.02)
    assert figures["circularity"] == pytest.approx(1, abs=0.03)
    assert figures["eccentricity"] == pytest.approx(0, abs=0.05)
    assert figures["solidity"] == pytest.approx(1, abs=0.03)


def test_an_ellipse_has_the_axes_it_was_drawn_with(draw):
    labels = np.zeros((120, 120), np.int32)
    cv2.ellipse(labels, (60, 60), (40, 20), 30, 0, 360, 1, -1)
    figures = table.numbers(draw(labels))
    assert figures["major_axis_um"][0] == pytest.approx(40.5, rel=0.02)
    assert figures["minor_axis_um"][0] == pytest.approx(20.5, rel=0.02)
    assert figures["eccentricity"][0] == pytest.approx(np.sqrt(3) / 2, abs=0.01)


def test_a_cross_has_a_quarter_of_its_hull_missing(draw):
    labels = np.zeros((40, 40), np.int32)
    labels[10:30, 15:25] = labels[15:25, 10:30] = 1
    # 300 of 20 x 20 pixels; the hull lacks four corner triangles of 5 x 5 / 2
    assert table.numbers(draw(labels))["solidity"][0] == pytest.approx(300 / 350)


def test_figures_in_microns_do_not_depend_on_the_scale_of_the_image(draw):
    one, other = table.numbers(disc(draw)), table.numbers(disc(draw, mpp=0.25, size=(240, 240)))
    scale_free = [name for name in one if name.endswith(("um", "um2")) or name in {"solidity", "circularity"}]
    for name in scale_free:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(other["area_px"], 4 * one["area_px"])


def test_stain_means_are_those_of_the_whole_image_transformed(many, image):
    stains = rgb2hed(image)
    ours = table.numbers(many, image)
    expected = [stains[many.grid == number, 0].mean() for number in many.nuclei.id]
    np.testing.assert_allclose(ours["haematoxylin_mean"], expected)
    assert ours["eosin_mean"][4] == pytest.approx(stains[many.grid == 5, 1].mean())


def test_without_the_image_the_stain_cells_are_empty(few, context):
    read = rows(table.encode(few, context))
    assert {(row["haematoxylin_mean"], row["eosin_mean"]) for row in read} == {("", "")}


def test_nuclei_at_the_border_are_marked(many, context):
    marks = [int(row["touches_border"]) for row in rows(table.encode(many, context))]
    x0, y0, x1, y1 = many.nuclei.bbox.T
    assert marks == ((x0 == 0) | (y0 == 0) | (x1 == 260) | (y1 == 180)).astype(int).tolist()
    assert set(marks) == {0, 1}


def test_uncertain_means_the_same_as_in_geojson(many, context):
    marks = [int(row["uncertain"]) for row in rows(table.encode(many, context))]
    assert marks == (many.nuclei.type_prob < 0.5).astype(int).tolist()


def test_a_nucleus_whose_class_stayed_open_is_unclassified(few, context):
    open_class = replace(few, nuclei=replace(few.nuclei, type=np.array([0, 2, 3, 2, 6], np.uint8)))
    assert rows(table.encode(open_class, context))[0]["class"] == "unclassified"


def test_a_nucleus_of_one_pixel_has_finite_figures(draw):
    labels = np.zeros((5, 5), np.int32)
    labels[2, 2] = 1
    figures = table.numbers(draw(labels), np.zeros((5, 5, 3), np.uint8))
    assert all(np.isfinite(column).all() for column in figures.values())
    assert (figures["solidity"][0], figures["circularity"][0], figures["eccentricity"][0]) == (1, 1, 0)
