"""A dropped image: outlines, counts, one nucleus, a region, by mouse and by keyboard."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from shapely import Polygon, box
from shapely.geometry import shape
from skimage.data import immunohistochemistry

from tests.browser.conftest import as_png

SIDE = 256  # of the tile
PAINTED = """() => {
  const canvas = document.querySelector("canvas.lines");
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let count = 0;
  for (let i = 3; i < pixels.length; i += 4) count += pixels[i] > 0;
  return count;
}"""
RING = """() => {
  const focused = document.activeElement;
  if (focused.id === "canvas") return getComputedStyle(focused, "::after").borderTopStyle;
  return getComputedStyle(focused).outlineStyle;
}"""
IN_VIEW = """(id) => {
  const { top, bottom } = document.getElementById(id).getBoundingClientRect();
  return top >= 0 && bottom <= innerHeight;
}"""
DROP_MORE = """(folder) => {
  const data = new DataTransfer();
  for (const name of folder ? ["slide"] : ["one.dcm", "two.dcm"]) data.items.add(new File([name], name));
  if (folder) DataTransferItem.prototype.webkitGetAsEntry = () => ({ isDirectory: true });
  const drop = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  document.querySelector("#stage").dispatchEvent(drop);
}"""
STROKES = """() => {
  window.strokes = [];
  const { stroke } = CanvasRenderingContext2D.prototype;
  CanvasRenderingContext2D.prototype.stroke = function (...path) {
    window.strokes.push(this.lineWidth);
    return stroke.apply(this, path);
  };
}"""
FINGERPRINT = "() => document.querySelector('canvas.lines').toDataURL()"


def painted(page: Any) -> int:
    """Pixels with lines on them, once what was changed is drawn."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    count: int = page.evaluate(PAINTED)
    return count


def counts(page: Any) -> dict[str, int]:
    shown = page.locator("#nuclei [data-count]")
    return {row.get_attribute("data-count"): int(row.inner_text().replace(",", "")) for row in shown.all()}


def on_screen(page: Any, x: float, y: float) -> tuple[float, float]:
    """Where a point of the tile lies: the image fills the shorter side of the stage."""
    stage = page.locator("#canvas").bounding_box()
    side = min(stage["width"], stage["height"])
    left, top = stage["x"] + (stage["width"] - side) / 2, stage["y"] + (stage["height"] - side) / 2
    return left + x / SIDE * side, top + y / SIDE * side


@pytest.fixture
def features(karyon, tile) -> list[dict[str, Any]]:
    """What the service finds in the tile."""
    answer = httpx.post(f"{karyon.address}/v1/segment", content=tile, timeout=60).json()
    found: list[dict[str, Any]] = answer["features"]
    return found


def centred_in(region: Polygon, features: list[dict[str, Any]]) -> int:
    """Nuclei with their centre in a region: some, but not all, or the region tells nothing."""
    inside = sum(region.contains(shape(feature["geometry"]).centroid) for feature in features)
    assert 0 < inside < len(features)
    return inside


def test_the_counts_shown_are_the_services(analysed, karyon, tile):
    answer = httpx.post(f"{karyon.address}/v1/segment", content=tile, timeout=60).json()["summary"]
    assert answer["total"] > 0
    assert counts(analysed) | answer["counts"] == counts(analysed)
    assert analysed.inner_text("#total") == str(answer["total"])


def test_the_page_says_what_it_does_not_know(analysed):
    assert "does not tell tumour from healthy epithelium" in analysed.inner_text("#burden")
    assert analysed.locator("#quality [data-code=mpp_assumed]").count() == 1
    assert "karyon-lite" in analysed.inner_text("#origin")
    assert analysed.locator("#notice").is_visible()


def test_a_class_that_is_switched_off_is_not_drawn(analysed):
    before = painted(analysed)
    analysed.get_by_role("checkbox", name="connective").uncheck()
    without = painted(analysed)
    analysed.get_by_role("checkbox", name="connective").check()
    assert without < before == painted(analysed)


def test_the_slider_takes_the_outlines_away(analysed):
    analysed.locator("#opacity").fill("0")
    assert painted(analysed) == 0


def test_zooming_in_leaves_fewer_micrometres_to_the_bar(analysed):
    length = "() => document.querySelector('#scalebar').innerText"
    before = analysed.evaluate(length)
    for _ in range(4):
        analysed.get_by_role("button", name="Zoom in").click()
    analysed.wait_for_function(f"(before) => ({length})() !== before", arg=before)
    analysed.get_by_role("button", name="Fit").click()
    analysed.wait_for_function(f"(before) => ({length})() === before", arg=before)


def test_dragging_moves_the_image(analysed):
    analysed.get_by_role("button", name="Zoom in").click()
    before = analysed.evaluate(FINGERPRINT)
    box = analysed.locator("#canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    analysed.mouse.move(x, y)
    analysed.mouse.down()
    analysed.mouse.move(x - 120, y - 60, steps=5)
    analysed.mouse.up()
    painted(analysed)
    assert analysed.evaluate(FINGERPRINT) != before


def test_a_click_on_a_nucleus_tells_what_is_known_of_it(analysed, features):
    largest = max(features, key=lambda f: f["properties"]["measurements"]["Area px^2"])
    ring = largest["geometry"]["coordinates"][0]
    analysed.mouse.click(*on_screen(analysed, *(sum(p[axis] for p in ring[:-1]) / (len(ring) - 1) for axis in (0, 1))))
    shown = analysed.locator("#nucleus")
    shown.wait_for()
    assert largest["properties"]["classification"]["name"] in shown.inner_text()
    assert largest["id"] in (shown.locator("code").text_content() or "")
    shown.get_by_role("button", name="Close nucleus details").click()
    assert shown.is_hidden()


def test_the_whole_view_as_region_holds_every_nucleus(analysed):
    analysed.keyboard.press("v")
    assert analysed.inner_text("#region-total") == analysed.inner_text("#total")


def test_a_drawn_rectangle_counts_the_nuclei_centred_in_it(analysed, features):
    analysed.get_by_role("button", name="Rectangle").click()
    analysed.mouse.move(*on_screen(analysed, 20.5, 80.5))
    analysed.mouse.down()
    analysed.mouse.move(*on_screen(analysed, 140.5, 185.5), steps=4)
    analysed.mouse.up()
    assert int(analysed.inner_text("#region-total")) == centred_in(box(20.5, 80.5, 140.5, 185.5), features)
    assert "mm²" in analysed.inner_text("#region")


def test_a_polygon_is_drawn_by_clicks_and_closed_by_enter(analysed, features):
    corners = [(20, 80), (200, 80), (100, 230)]
    analysed.get_by_role("button", name="Polygon").click()
    for corner in corners:
        analysed.mouse.click(*on_screen(analysed, *corner))
    analysed.locator("#canvas").focus()
    analysed.keyboard.press("Enter")
    assert int(analysed.inner_text("#region-total")) == centred_in(Polygon(corners), features)


def test_what_is_told_of_a_region_goes_with_it(analysed):
    analysed.keyboard.press("v")
    analysed.locator("#region-total").wait_for()
    analysed.keyboard.press("r")
    assert analysed.locator("#region").is_hidden()


def test_a_polygon_that_crosses_itself_is_refused_as_the_service_would(analysed):
    analysed.get_by_role("button", name="Polygon").click()
    for corner in [(20, 80), (200, 230), (200, 80), (20, 230)]:
        analysed.mouse.click(*on_screen(analysed, *corner))
    analysed.locator("#canvas").focus()
    analysed.keyboard.press("Enter")
    analysed.locator(".message", has_text="crosses itself").wait_for()
    assert analysed.locator("#region").is_hidden()


def test_everything_can_be_done_by_keyboard(analysed):
    before = painted(analysed)
    analysed.keyboard.press("a")
    assert painted(analysed) == 0
    analysed.keyboard.press("a")
    assert painted(analysed) == before
    analysed.keyboard.press("?")
    assert analysed.get_by_role("dialog").is_visible()
    analysed.keyboard.press("Escape")
    analysed.keyboard.press("r")
    assert analysed.get_by_role("button", name="Rectangle").get_attribute("aria-pressed") == "true"
    analysed.keyboard.press("Escape")
    assert analysed.locator("#drawing-hint").is_hidden()


def test_focus_is_seen_wherever_it_goes(analysed):
    for _ in range(12):
        analysed.keyboard.press("Tab")
        assert analysed.evaluate(RING) == "solid"


@pytest.mark.parametrize("width", [400, 320])
def test_a_narrow_window_shows_everything_without_scrolling_sideways(open_page, drop, tile, width):
    page = open_page(width=width)
    drop(page, tile)
    page.wait_for_selector("#total")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    for id in ("canvas", "toolbar", "nuclei", "burden", "quality", "origin"):
        box = page.locator(f"#{id}").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    assert page.locator("#notice").is_visible()


def test_what_a_finger_asked_for_is_brought_into_view(open_page, drop, tile, features):
    page = open_page(width=390, has_touch=True)
    drop(page, tile)
    page.wait_for_selector("#total")
    page.keyboard.press("v")
    page.wait_for_function(IN_VIEW, arg="region")
    page.evaluate("() => scrollTo(0, 0)")
    page.keyboard.press("Enter")
    page.wait_for_function(IN_VIEW, arg="nucleus")


def test_outlines_seen_from_afar_leave_the_nuclei_open(open_page, drop):
    page = open_page(width=320)
    drop(page, as_png(immunohistochemistry()))
    page.wait_for_selector("#total")
    page.evaluate(STROKES)
    page.get_by_role("button", name="Zoom out").click()
    page.wait_for_function("() => strokes.length")
    assert page.evaluate("() => Math.max(...strokes)") < 5  # image pixels, of nuclei with about 15


def test_a_broken_image_is_answered_by_the_problems_own_words(open_page, drop, seen, tile):
    page = open_page()
    drop(page, tile[:2000])
    assert page.locator(".problem-title").inner_text() == "Broken image"
    assert any("422" in error for error in seen.errors)
    seen.errors.clear()  # the browser itself notes every refused request


def test_the_page_survives_a_restart_of_the_service(analysed, karyon, seen, drop, tile):
    karyon.stop()
    drop(analysed, tile)
    analysed.wait_for_selector("#status[data-state=lost]")
    assert "unreachable, retrying" in analysed.inner_text("#status")
    karyon.start()
    analysed.wait_for_selector("#status[data-state=ready]")
    drop(analysed, tile)
    analysed.locator("#total").wait_for()
    assert analysed.locator(".message").count() == 0
    seen.errors.clear()  # of the refused connections


def test_what_the_service_could_not_answer_is_done_when_it_is_back(open_page, drop, tile, seen):
    page = open_page()
    for path in ("**/v1/segment*", "**/healthz/live"):
        page.route(path, lambda route: route.abort())
    drop(page, tile)
    page.locator(".message", has_text="as soon as it does").wait_for()
    page.unroute_all()
    page.locator("#total").wait_for()
    assert page.locator(".message").count() == 0
    seen.errors.clear()  # of the refused connections


def test_a_connection_that_broke_is_not_called_a_lost_service(analysed, seen):
    analysed.route("**/v1/segment*", lambda route: route.abort())
    analysed.click("#again")
    assert analysed.locator(".problem-title").inner_text() == "Connection broken"
    analysed.get_by_role("button", name="Dismiss").click()
    assert analysed.locator("#total").is_visible()
    analysed.unroute_all()
    with analysed.expect_response("**/v1/segment*"):
        analysed.click("#again")
    seen.errors.clear()  # of the broken connection


@pytest.mark.parametrize("folder", [True, False], ids=["folder", "several"])
def test_what_is_not_one_file_is_answered_by_what_to_do(analysed, folder):
    analysed.evaluate(DROP_MORE, folder)
    assert "added by its path" in analysed.locator(".message").inner_text()
    assert analysed.locator("#total").is_visible()


def test_a_scale_may_have_a_decimal_comma(analysed):
    analysed.select_option("#save-form", label="CSV table")
    analysed.fill("#wish-mpp", "0,25")
    with analysed.expect_request("**/v1/segment*") as caught:
        analysed.click("#again")
    assert "mpp=0.25" in caught.value.url
    analysed.wait_for_function("() => document.querySelector('#origin').innerText.includes('0.25 µm')")
    assert analysed.locator("#save-form option:checked").inner_text() == "CSV table"  # what was chosen stays


def test_a_scale_that_is_no_figure_is_refused(analysed):
    analysed.fill("#wish-mpp", "0,2,5")
    analysed.click("#again")
    assert analysed.locator(".problem-title").inner_text() == "Scale not understood"
    assert analysed.locator("#again").is_visible()


def test_a_new_image_brings_its_results_into_view(analysed, drop, tile):
    panel = analysed.locator("#panel")
    assert panel.evaluate("(panel) => { panel.scrollTo(0, 200); return panel.scrollTop }") == 200
    drop(analysed, tile)
    analysed.wait_for_function("() => document.querySelector('#panel').scrollTop === 0")


def test_the_results_can_be_saved_as_a_table(analysed):
    analysed.locator("#save-form").select_option(label="CSV table")
    with analysed.expect_download() as caught:
        analysed.locator("#save-button").click()
    assert caught.value.suggested_filename == "tile.csv"
    lines = caught.value.path().read_text().splitlines()
    assert len(lines) - 1 == int(analysed.inner_text("#total"))
