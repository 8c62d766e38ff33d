"""The web demo in a browser: Debian's Chromium, driven by Playwright, as a visitor would use it.

`pytest -m slow tests/commands/test_demo_browser.py` drives the shipped model as well and keeps
what the pages looked like as demo.jpg and demo_phone.jpg in the folder that DEMO_PICTURES names (docs/images
has them from there).
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image
from small_head import small_head, small_head_data
from talking_model import gray_image, talking_model

from facegpt.commands import chat_picture
from facegpt.commands.demo import DemoSettings, start
from facegpt.errors import MissingPartError
from facegpt.head.files.format import save_head
from facegpt.model.checkpoint import save_checkpoint

CHROMIUM = shutil.which("chromium")
SOFTWARE_GL = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
# Four frames a second: drawing without a GPU takes all cores otherwise.
SLOW_FRAMES = "window.requestAnimationFrame = f => setTimeout(() => f(performance.now()), 250)"
PATIENCE = 240_000  # ms; a busy machine draws slowly
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    pytest.importorskip("gradio", reason='the demo needs gradio: pip install "facegpt[demo]"')
    playwright = pytest.importorskip("playwright.sync_api", reason="driving a browser needs playwright")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=[*SOFTWARE_GL, *CAMERA])
        yield started
        started.close()


@pytest.fixture(scope="module")
def small_demo(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a demo of a tiny model that begins every reply with a face."""
    path = tmp_path_factory.mktemp("demo")
    save_head(small_head_data(), path / "head.npz")
    save_checkpoint(talking_model(small_head(), path / "llava"), path / "run", small_head().id)
    (path / "files").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat_picture, "missing_landmarker", lambda: "nobody finds faces here")
        parts = (path / "run", str(path / "head.npz"))
        page = start(DemoSettings(*parts, device="cpu", max_new_tokens=4, port=7991), path / "files")
        yield page.local_url
        page.close(verbose=False)


def visit(browser: Any, url: str, outside: list[str], **screen: Any) -> Any:
    """A page of the demo; what it asks other hosts for lands in `outside`."""
    page = browser.new_page(**screen)
    page.set_default_timeout(PATIENCE)
    page.add_init_script(SLOW_FRAMES)
    page.on("request", lambda r: None if r.url.startswith((url, "data:", "blob:")) else outside.append(r.url))
    page.goto(url)
    message_box(page).wait_for()
    return page


def message_box(page: Any) -> Any:
    return page.locator("#box textarea")


def say(page: Any, text: str) -> None:
    faces = page.locator(".face-card").count()
    message_box(page).fill(text)
    message_box(page).press("Enter")
    page.locator(".face-card").nth(faces).wait_for()


def wait_until_drawn(page: Any, view: str = "#view") -> None:
    """Until the canvas of a 3D view shows more than one colour."""
    canvas = page.locator(f"{view} canvas")
    canvas.wait_for()
    for _ in range(PATIENCE // 500):
        colors = np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert("L"))
        if np.ptp(colors[40:-40, 40:-40]) > 40:
            return
        page.wait_for_timeout(500)
    raise AssertionError(f"{view} stayed blank")


def download(page: Any, title: str) -> Path:
    with page.expect_download() as expected:
        page.locator("#files").get_by_text(title, exact=True).click()
    return Path(expected.value.path())


def test_a_visitor_talks_turns_sliders_and_takes_the_face_home(
    browser: Any, small_demo: str, tmp_path: Path
) -> None:
    outside: list[str] = []
    page = visit(browser, small_demo, outside, **DESKTOP)
    say(page, "Show me the face.")
    wait_until_drawn(page)
    before = trimesh.load(download(page, "GLB"), file_type="glb", force="mesh", process=False)
    assert len(before.vertices) >= 306 and len(before.faces) > 0

    slider = page.locator(".knobs input[type=number]").first
    pictured = page.locator("#picture img").get_attribute("src")
    slider.fill("1.2")
    slider.press("Enter")
    slider.blur()
    page.wait_for_function("old => document.querySelector('#picture img').src != old", arg=pictured)
    after = trimesh.load(download(page, "GLB"), file_type="glb", force="mesh", process=False)
    assert abs(after.vertices - before.vertices).max() > 1e-4

    gray_image().save(tmp_path / "photo.png")
    page.locator("#box input[type=file]").set_input_files(tmp_path / "photo.png")
    say(page, "Who is this?")
    assert page.locator("#chat img.shown").count() == 1
    assert page.locator("#faces button.thumbnail-item").count() >= 2
    assert not outside, "the page asked other hosts"
    page.close()


def test_a_phone_shows_everything_in_its_width(browser: Any, small_demo: str) -> None:
    page = visit(browser, small_demo, [], **PHONE)
    page.locator("#chat .example").first.tap()
    page.locator(".face-card").first.wait_for()
    page.locator("#files").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


@pytest.mark.slow
def test_the_shipped_model_as_the_pictures_show_it(browser: Any, tmp_path: Path) -> None:
    try:
        served = start(DemoSettings(device="cpu", port=7992), tmp_path)
    except MissingPartError as error:
        pytest.skip(str(error))
    outside: list[str] = []
    page = visit(browser, served.local_url, outside, **DESKTOP)
    page.locator("#chat .example").first.click()
    page.locator(".face-card").first.wait_for()
    say(page, "Her team just lost the final in the last minute. Show me how she looks.")
    wait_until_drawn(page)
    keep(page, "demo.jpg")
    page.close()
    page = visit(browser, served.local_url, outside, **PHONE)
    page.locator("#chat .example").nth(1).tap()
    page.locator(".face-card").first.wait_for()
    wait_until_drawn(page)
    keep(page, "demo_phone.jpg")
    page.close()
    served.close(verbose=False)
    assert not outside, "the page asked other hosts"


def keep(page: Any, name: str) -> None:
    """Save what the page looks like where DEMO_PICTURES says."""
    if folder := os.environ.get("DEMO_PICTURES"):
        page.wait_for_timeout(1500)
        page.screenshot(path=Path(folder) / name, full_page=True, type="jpeg", quality=82)
