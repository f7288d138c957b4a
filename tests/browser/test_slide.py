"""A slide in the viewer: it comes in, is analysed in the background, and is looked at from afar and close by."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

NAME, SIZE = "CMU-1-Small-Region.svs", (2220, 2967)
REGION = [700, 600, 1212, 1112]  # epithelium and stroma: a few patches


PIXELS = "() => document.querySelector('.openseadragon-canvas canvas').toDataURL()"
DECODE_LATER = """() => {
  const { decode } = HTMLImageElement.prototype;
  const late = new Promise((resolve) => (window.decodeNow = resolve));
  HTMLImageElement.prototype.decode = function () { return late.then(() => decode.call(this)); };
}"""


@pytest.fixture(scope="session")
def slide_file(data_root: Path) -> Path:
    path = data_root / "slides" / NAME
    if not path.is_file():
        pytest.skip(f"KARYON_DATA has no slides/{NAME}")
    return path


def upload(address: str, file: Path) -> str:
    answer = httpx.post(f"{address}/v1/slides?filename=slide.svs", content=file.read_bytes(), timeout=60)
    assert answer.status_code == 201, answer.text
    slide: str = answer.json()["id"]
    return slide


def on_screen(page: Any, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of the slide is while the whole of it is in view."""
    box = page.locator("#canvas").bounding_box()
    scale = min(box["width"] / SIZE[0], box["height"] / SIZE[1])
    left, top = box["x"] + (box["width"] - scale * SIZE[0]) / 2, box["y"] + (box["height"] - scale * SIZE[1]) / 2
    return left + scale * x, top + scale * y


def draw(page: Any, region: list[int]) -> None:
    """Draw a rectangle of slide pixels; the whole slide is in view."""
    page.keyboard.press("r")
    page.mouse.move(*on_screen(page, *region[:2]))
    page.mouse.down()
    page.mouse.move(*on_screen(page, *region[2:]), steps=4)
    page.mouse.up()


@pytest.fixture(scope="module")
def analysed_slide(karyon: Any, slide_file: Path) -> str:
    """The id of a slide of which a region was analysed."""
    slide = upload(karyon.address, slide_file)
    with httpx.Client(base_url=karyon.address, timeout=60) as http:
        job = http.post(f"/v1/slides/{slide}/jobs", json={"region": REGION}).json()["id"]
        with http.stream("GET", f"/v1/jobs/{job}/events", timeout=180) as events:
            for _ in events.iter_lines():
                pass
        assert http.get(f"/v1/jobs/{job}").json()["state"] == "done"
    return slide


@pytest.fixture
def new_slide(karyon: Any, slide_file: Path) -> Iterator[str]:
    """The id of a slide that nobody has analysed."""
    slide = upload(karyon.address, slide_file)
    yield slide
    httpx.delete(f"{karyon.address}/v1/slides/{slide}")


@pytest.fixture
def opened(open_page: Any, analysed_slide: str) -> Any:
    page = open_page(f"?slide={analysed_slide}")
    page.wait_for_selector("#total")
    return page


def test_a_slide_is_dropped_and_a_region_of_it_analysed_while_one_watches(open_page, drop, slide_file):
    page = open_page()
    drop(page, slide_file.read_bytes(), "somebody.svs", "")
    page.wait_for_selector("#start")
    assert page.inner_text("#subject") == "somebody.svs"
    draw(page, REGION)
    assert page.inner_text("#region-total") == "0"
    page.click("#start-region")
    page.wait_for_selector("#job-state")
    assert page.get_attribute("#start-region", "aria-disabled") == "true"
    page.wait_for_selector("#start")
    assert "complete" in page.inner_text("#job")
    page.wait_for_function("() => document.querySelector('#region-total').innerText !== '0'")
    assert "Only" not in page.inner_text("#region")
    assert page.get_attribute("#start-region", "aria-disabled") == "false"
    assert int(page.inner_text("#total").replace(",", "")) > 0


def test_the_file_name_stays_in_the_browser(open_page, drop, slide_file, seen):
    page = open_page()
    drop(page, slide_file.read_bytes(), "Jane Doe.svs", "")
    page.wait_for_selector("#start")
    assert not [url for url in seen.asked if "Jane" in url]


def test_what_is_shown_of_a_slide_is_its_summary(opened, karyon, analysed_slide):
    summary = httpx.get(f"{karyon.address}/v1/slides/{analysed_slide}/summary").json()
    shown = opened.locator("#nuclei [data-count]").all()
    counts = {row.get_attribute("data-count"): int(row.inner_text().replace(",", "")) for row in shown}
    assert counts | summary["counts"] == counts
    assert "karyon-lite" in opened.inner_text("#origin")


def test_the_picture_and_the_overlay_come_from_the_slides_pyramids(opened, seen):
    with opened.expect_response(lambda answer: "overlay_files" in answer.url) as caught:
        opened.keyboard.press("+")
    assert caught.value.status == 200
    assert any("/image_files/" in url for url in seen.asked)


def test_a_class_that_is_switched_off_leaves_the_overlay(opened, seen):
    with opened.expect_response(lambda answer: "overlay_files" in answer.url and "classes=" in answer.url) as caught:
        opened.get_by_role("checkbox", name="connective").uncheck()
    assert caught.value.status == 200
    assert "connective" not in caught.value.url
    assert Image.open(io.BytesIO(caught.value.body())).mode == "RGBA"


def test_classes_switched_off_in_quick_succession_leave_no_outlines(opened):
    opened.wait_for_load_state("networkidle")
    opened.keyboard.press("o")
    opened.wait_for_timeout(200)
    bare = opened.evaluate(PIXELS)
    opened.keyboard.press("o")
    opened.wait_for_function(f"(bare) => ({PIXELS})() !== bare", arg=bare)
    held = []
    opened.route(lambda url: "overlay_files" in url and "classes=" in url, lambda route, _: held.append(route))
    for _ in range(3):  # none, all, none: the second is complete first
        opened.keyboard.press("a")
        opened.wait_for_timeout(300)
    for late in held:
        late.continue_()
    opened.unroute_all()
    opened.wait_for_function(f"(bare) => ({PIXELS})() === bare", arg=bare, timeout=10_000)


def test_tiles_missed_while_the_service_was_away_are_loaded_when_it_is_back(opened, seen):
    missed = []
    opened.on("requestfailed", lambda request: "/image_files/" in request.url and missed.append(request.url))
    for path in ("**/image_files/**", "**/healthz/live"):
        opened.route(path, lambda route: route.abort())
    for _ in range(8):
        opened.keyboard.press("+")
    while not missed or min(map(missed.count, missed)) < 3:  # then OpenSeadragon gives up
        opened.wait_for_timeout(100)
    opened.wait_for_selector("#status[data-state=lost]")
    with opened.expect_response(lambda answer: answer.url in missed and answer.ok, timeout=15_000):
        opened.unroute_all()
    seen.errors.clear()  # of the refused connections


def test_a_slide_opened_while_a_picture_is_analysed_is_left_in_peace(open_page, drop, tile, analysed_slide):
    page = open_page()
    page.route("**/v1/segment*", lambda _: None)
    drop(page, tile)
    page.locator("#working").wait_for()
    page.locator(f"[data-slide='{analysed_slide}'] .name").click()
    page.locator("#total").wait_for()
    assert page.locator("#working").is_hidden()


def test_a_picture_that_was_left_while_it_was_decoded_stays_away(open_page, drop, tile, analysed_slide):
    page = open_page()
    page.evaluate(DECODE_LATER)
    drop(page, tile)
    page.locator(f"[data-slide='{analysed_slide}'] .name").click()
    page.locator("#total").wait_for()
    page.evaluate("() => decodeNow()")
    page.wait_for_timeout(300)  # whatever waits for the picture goes on
    assert page.inner_text("#subject").startswith("aperio")
    assert page.locator("#total").is_visible()


def test_a_file_that_is_refused_leaves_the_slide_as_it_is(opened, drop, seen):
    opened.locator("#start").wait_for()
    drop(opened, b"no slide at all", "notes.txt", "text/plain")
    opened.locator(".message").wait_for()
    assert opened.locator("#start").is_visible()
    assert opened.locator("#upload").is_hidden()
    seen.errors.clear()  # the browser notes the refusal


def test_the_names_of_slides_are_shown_in_full(opened, analysed_slide):
    name = opened.locator(f"[data-slide='{analysed_slide}'] .name")
    assert name.evaluate("(name) => name.scrollWidth <= name.clientWidth")


@pytest.mark.parametrize(
    ("label", "ending"), [("GeoJSON for QuPath", ".geojson"), ("CSV table", ".csv"), ("hover_net JSON", ".json")]
)
def test_what_is_saved_of_a_slide_is_its_export(opened, karyon, analysed_slide, label, ending):
    form = {".geojson": "geojson", ".csv": "csv", ".json": "hovernet"}[ending]
    opened.select_option("#save-form", label=label)
    with opened.expect_download() as caught:
        opened.click("#save-button")
    expected = httpx.get(f"{karyon.address}/v1/slides/{analysed_slide}/export?format={form}", timeout=60)
    assert caught.value.suggested_filename.endswith(ending)
    assert Path(caught.value.path()).read_bytes() == expected.content


def test_a_nucleus_of_a_slide_tells_what_is_known_of_it(opened, karyon, analysed_slide):
    box = ",".join(map(str, REGION))
    found = httpx.get(f"{karyon.address}/v1/slides/{analysed_slide}/nuclei?bbox={box}").json()["features"]
    largest = max(found, key=lambda f: f["properties"]["measurements"]["Area px^2"])
    x, y = (sum(axis) / len(axis) for axis in zip(*largest["geometry"]["coordinates"][0], strict=True))
    opened.mouse.click(*on_screen(opened, x, y))
    opened.locator("#nucleus").wait_for()
    assert largest["id"] in (opened.locator("#nucleus code").text_content() or "")


def test_a_region_holds_what_the_service_counts_there(opened):
    with opened.expect_response(lambda answer: "region=" in answer.url) as caught:
        draw(opened, [REGION[0], REGION[1], REGION[2], (REGION[1] + REGION[3]) // 2])
    counted = caught.value.json()["total"]
    assert opened.inner_text("#region-total") == f"{counted:,}"
    assert 0 < counted < int(opened.inner_text("#total").replace(",", ""))


def test_a_slide_that_was_left_for_another_offers_no_work_beside_it(open_page, karyon, analysed_slide, slide_file):
    other = upload(karyon.address, slide_file)
    page, held, summary = open_page(), [], f"**/v1/slides/{analysed_slide}/summary"
    page.route(summary, lambda route, _: held.append(route))
    with page.expect_request(summary):
        page.locator(f"[data-slide='{analysed_slide}'] .name").click()
    page.locator(f"[data-slide='{other}'] .name").click()
    page.locator("#job", has_text="Not analysed yet").wait_for()
    with page.expect_response(summary):
        held[0].continue_()
    page.wait_for_timeout(300)  # whatever waits for that answer goes on
    assert "Not analysed yet" in page.inner_text("#job")
    assert page.evaluate("location.search").endswith(other)
    httpx.delete(f"{karyon.address}/v1/slides/{other}")


def test_a_slide_without_scale_is_asked_for_it(open_page, drop, seen):
    file = io.BytesIO()
    Image.effect_noise((300, 300), 60).convert("RGB").save(file, "TIFF")
    page = open_page()
    drop(page, file.getvalue(), "scan.tif", "image/tiff")
    page.click("#start")
    page.locator("#scale-field").fill("0,5")
    page.get_by_role("button", name="Use scale").click()
    page.wait_for_selector("#job-state, #start")
    page.wait_for_function("() => document.querySelector('#origin').innerText.includes('0.5 µm per pixel')")
    assert any("422" in error for error in seen.errors)
    seen.errors.clear()  # the browser notes the refusal


def analyse_again(page: Any) -> None:
    """Run a job on what is analysed already, by a press that leaves the focus where it is."""
    page.locator("#start").wait_for()
    draw(page, [REGION[0] + 60, REGION[1] + 60, REGION[2] - 60, REGION[3] - 60])
    page.locator("#start-region").wait_for()
    with page.expect_response("**/events"):
        page.evaluate("() => document.querySelector('#start-region').click()")


def test_a_job_that_ends_while_the_outlines_are_off_is_told_so(opened):
    opened.keyboard.press("o")
    analyse_again(opened)
    opened.wait_for_selector("#start", timeout=20_000)
    assert "complete" in opened.inner_text("#job")


def test_new_results_leave_the_reader_where_he_is(opened):
    opened.select_option("#save-form", label="CSV table")
    opened.locator("summary", has_text="Provenance").click()
    opened.get_by_role("checkbox", name="plasma").focus()
    with opened.expect_response("**/summary"):
        analyse_again(opened)
    opened.wait_for_selector("#start")
    assert opened.evaluate("() => document.activeElement.dataset.focus") == "class-3"
    assert opened.locator("#save-form option:checked").inner_text() == "CSV table"
    assert opened.locator("#origin details").get_attribute("open") is not None


def test_a_double_click_starts_one_job(open_page, new_slide):
    page, held = open_page(f"?slide={new_slide}"), []
    page.route("**/jobs", lambda route, _: held.append(route))
    page.dblclick("#start")
    assert page.inner_text("#start") == "Starting …"
    page.wait_for_timeout(200)
    assert len(held) == 1
    held[0].continue_()
    page.focus("#cancel")
    page.wait_for_function("() => /of \\d+ parts/.test(document.querySelector('#job-progress').innerText)")
    assert page.evaluate("() => document.activeElement.id") == "cancel"


def test_a_job_that_somebody_else_started_is_followed(open_page, karyon, new_slide, seen):
    page = open_page(f"?slide={new_slide}")
    page.locator("#start").wait_for()
    httpx.post(f"{karyon.address}/v1/slides/{new_slide}/jobs", json={}).raise_for_status()
    page.click("#start")
    page.click("#cancel")
    page.wait_for_selector("#start")
    assert page.locator(".message").count() == 0
    assert [error for error in seen.errors if "409" not in error] == []
    seen.errors.clear()  # the browser notes the refusal


def test_a_slide_that_somebody_else_deleted_is_left(open_page, karyon, new_slide, seen):
    page = open_page(f"?slide={new_slide}")
    page.click("#start")
    page.wait_for_selector("#job-state[data-state=running]")
    httpx.delete(f"{karyon.address}/v1/slides/{new_slide}").raise_for_status()
    page.locator(".message", has_text="was deleted").wait_for(timeout=20_000)
    page.locator(f"[data-slide='{new_slide}']").wait_for(state="detached")
    assert page.locator("#job").is_hidden()
    assert page.locator("#welcome").is_visible()
    seen.errors.clear()  # the browser notes what is not found


def test_a_job_is_watched_through_a_crash_of_the_service(open_page, karyon, slide_file, seen):
    page = open_page(f"?slide={upload(karyon.address, slide_file)}")
    page.click("#start")
    page.wait_for_function("() => /of \\d+ parts/.test(document.querySelector('#job-progress')?.innerText)")
    karyon.stop(signal.SIGKILL)
    page.wait_for_selector("#status[data-state=lost]")
    assert "unreachable, retrying" in page.inner_text("#status")
    karyon.start()
    page.wait_for_selector("#status[data-state=ready]")
    page.wait_for_selector("#job-state[data-state=running]")
    page.click("#cancel")
    page.wait_for_selector("#start")
    assert "cancelled" in page.inner_text("#job")
    seen.errors.clear()  # of the refused connections


def test_a_slide_is_deleted_after_a_question(open_page, karyon, slide_file):
    slide = upload(karyon.address, slide_file)
    page = open_page(f"?slide={slide}")
    page.wait_for_load_state("networkidle")  # no tile is under way any more
    page.locator(f"[data-slide='{slide}']").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.locator(f"[data-slide='{slide}']").wait_for(state="detached")
    assert httpx.get(f"{karyon.address}/v1/slides/{slide}").status_code == 404
    assert page.locator("#welcome").is_visible()


def test_a_slide_can_be_deleted_that_somebody_else_deleted_before(open_page, karyon, new_slide, seen):
    page = open_page()
    page.locator(f"[data-slide='{new_slide}']").get_by_role("button", name="Delete").click()
    httpx.delete(f"{karyon.address}/v1/slides/{new_slide}").raise_for_status()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.locator(f"[data-slide='{new_slide}']").wait_for(state="detached")
    assert page.locator(".message").count() == 0
    seen.errors.clear()  # the browser notes what is not found


def test_a_slide_that_is_not_there_is_said_so(open_page, seen):
    page = open_page("?slide=0123456789abcdef0123456789abcdef")
    assert page.locator(".problem-title").inner_text() == "Nothing at this address"
    seen.errors.clear()
