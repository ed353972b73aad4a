"""The page in a headless Chromium, as a person uses it: pointer or keyboard, light or dark, wide or narrow."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from scav_model.serve.app import make_app
from scav_model.serve.guard import Guard, names_of_this_machine
from scav_model.serve.run import address, listening, run
from tests.serve.worlds import World, make_world

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("there is no Chromium: apt-get install chromium", allow_module_level=True)

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
AXE = "axe-core@4.14.1"
# Milliseconds that a busy machine may take for one step.
TIMEOUT = 30_000


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("shown"), seconds=3.0)


@pytest.fixture(scope="module")
def url(shown: World) -> Iterator[str]:
    engine = shown.engine(seconds=5.0)
    engine.workers.start().result()
    with listening("127.0.0.1", 0) as listener:
        app = Guard(make_app(engine), names_of_this_machine("127.0.0.1"))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=run, args=(server, listener))
        thread.start()
        yield address(listener, "127.0.0.1", None)
        server.should_exit = True
        thread.join()
        engine.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as library:
        options = ["--autoplay-policy=no-user-gesture-required", "--no-sandbox", "--mute-audio"]
        # A microphone that beeps, and nobody to be asked for it.
        options += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        made = library.chromium.launch(executable_path=CHROMIUM, args=options)
        yield made
        made.close()


@pytest.fixture
def page(browser: playwright.Browser, url: str) -> Iterator[playwright.Page]:
    """The page, loaded; no script may fail and no answer may be blocked by the content policy."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    made = context.new_page()
    made.set_default_timeout(TIMEOUT)
    faults: list[str] = []
    made.on("pageerror", lambda error: faults.append(str(error)))
    made.on("console", lambda line: faults.append(line.text) if "Content Security Policy" in line.text else None)
    made.goto(url)
    made.get_by_role("button", name="bell").wait_for()
    yield made
    context.close()
    assert faults == []


def search_by_clip(page: playwright.Page, clip: str = "bell") -> None:
    page.get_by_role("button", name=clip).click()
    page.get_by_text("5 of 5 clips by DTW").wait_for()


def wait_until(page: playwright.Page, expression: str) -> None:
    """Wait until a script returns true. Playwright's own way calls eval, which the page's policy forbids."""
    for _ in range(TIMEOUT // 100):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{expression} is still false")


def open_first(page: playwright.Page) -> playwright.Locator:
    first = page.locator("#hits > li").first
    first.get_by_role("button").click()
    figure = first.locator("figure")
    figure.wait_for()
    return figure


def test_a_clip_is_searched_and_its_own_clip_marked(page: playwright.Page) -> None:
    page.get_by_label("Or pick a clip").fill("BEL")
    page.get_by_text("drum").wait_for(state="detached")
    search_by_clip(page)
    assert page.locator("#hits > li").count() == 5
    own = page.locator("li.is-query")
    assert "bell" in own.locator("h3").inner_text()
    assert "the query's own clip" in own.inner_text()
    assert page.locator("#hits video").first.get_attribute("poster").startswith("/api/poster?clip=")
    assert "not where the index says" not in page.content()


def test_a_switch_of_the_metric_moves_ranks(page: playwright.Page) -> None:
    search_by_clip(page)
    before = page.locator("#hits h3").all_inner_texts()
    page.get_by_label("Sinkhorn", exact=True).check()
    page.get_by_text("5 of 5 clips by Sinkhorn").wait_for()
    after = page.locator("#hits h3").all_inner_texts()
    ranks = {text.partition(". ")[2]: text.partition(". ")[0] for text in before}
    for item, text in zip(page.locator("#hits > li").all(), after, strict=True):
        rank, _, name = text.partition(". ")
        words = f"rank {rank}, as before" if ranks[name] == rank else f"rank {ranks[name]} → {rank}"
        assert words in item.inner_text()
    page.get_by_label("Mean, without order").check()
    page.get_by_text("5 of 5 clips by Mean").wait_for()
    assert "adds up" in open_first(page).inner_text() or "add up" in page.locator("figure").inner_text()


def test_players_and_cursor_move_together(page: playwright.Page) -> None:
    search_by_clip(page)
    figure = open_first(page)
    players = figure.locator("video")
    assert players.count() == 2
    canvas = figure.locator("canvas").nth(1)
    box = canvas.bounding_box()
    assert box is not None
    # 1.5 s right and 1 s down; the axes have one scale.
    scale = (box["width"] - 100 - 14) / 3.0
    scale = min(scale, 420 / 3.0)
    canvas.click(position={"x": 100 + 1.5 * scale, "y": 8 + 1.0 * scale})
    times = "[...document.querySelectorAll('figure video')].map((video) => video.currentTime)"
    wait_until(page, f"{times}.every((time) => time > 0.5)")
    query, clip = page.evaluate(times)
    assert query == pytest.approx(1.0, abs=0.15)
    assert clip == pytest.approx(1.5, abs=0.15)
    slider = figure.get_by_role("slider", name="Time in the clip")
    assert float(slider.input_value()) == pytest.approx(1.5, abs=0.15)
    players.nth(0).evaluate("(video) => video.play()")
    wait_until(
        page,
        "document.querySelector('figure input').value > 0 && document.querySelector('figure video').currentTime > 1.3",
    )
    players.nth(0).evaluate("(video) => video.pause()")
    drawn = canvas.evaluate(
        "(one) => one.getContext('2d').getImageData(0, 0, one.width, one.height).data.some((value) => value)"
    )
    assert drawn


@pytest.mark.slow
def test_other_formats_play_or_say_why_not(page: playwright.Page) -> None:
    search_by_clip(page)
    page.locator("video[src*='clip=horn']").evaluate("(video) => video.play()")
    wait_until(page, "document.querySelector(\"video[src*='clip=horn']\").currentTime > 0.1")
    page.locator("video[src*='clip=gone']").evaluate("(video) => { video.play().catch(() => {}); }")
    page.get_by_text("No playback: the media file of this clip is not where the index says").wait_for()


def test_uploads_good_and_bad(page: playwright.Page, shown: World, tmp_path: Path) -> None:
    page.locator("#file").set_input_files(shown.folder / "horn.avi")
    page.get_by_role("heading", name="Query: horn.avi").wait_for()
    page.get_by_text("5 of 5 clips by DTW").wait_for()
    page.get_by_label("its sound, for videos that fit").check()
    page.get_by_role("heading", name="Videos nearest to horn.avi").wait_for()
    assert open_first(page).locator("canvas").count() == 2
    (tmp_path / "noise.mp4").write_bytes(b"noise" * 999)
    page.locator("#file").set_input_files(tmp_path / "noise.mp4")
    page.get_by_role("alert").get_by_text("not a readable media file").wait_for()
    assert page.get_by_role("heading", name="Query: horn.avi").is_visible()


def test_a_file_is_dropped(page: playwright.Page, shown: World) -> None:
    content = base64.b64encode((shown.folder / "bell.mp4").read_bytes()).decode()
    dropped = page.evaluate_handle(
        """(content) => {
            const dropped = new DataTransfer();
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            dropped.items.add(new File([bytes], "dropped.mp4", { type: "video/mp4" }));
            return dropped;
        }""",
        content,
    )
    page.dispatch_event("#drop", "dragover", {"dataTransfer": dropped})
    assert "over" in page.locator("#drop").get_attribute("class").split()
    page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
    page.get_by_role("heading", name="Query: dropped.mp4").wait_for()
    page.get_by_text("5 of 5 clips by DTW").wait_for()
    assert "over" not in page.locator("#drop").get_attribute("class").split()


@pytest.mark.slow
def test_the_microphone_searches_videos(page: playwright.Page) -> None:
    page.get_by_role("button", name="Record with the microphone").click()
    page.get_by_role("button", name="Stop and search (1 s)").click()
    page.get_by_role("heading", name="Videos nearest to recording").wait_for()
    page.get_by_text("5 of 5 clips by DTW").wait_for()
    assert page.get_by_role("button", name="Record with the microphone").is_enabled()
    assert page.get_by_label("its pictures, for sounds that fit").count() == 0
    assert open_first(page).locator("canvas").count() == 2


@pytest.mark.slow
def test_hasty_clicks_leave_one_alignment_and_nothing_that_listens(page: playwright.Page) -> None:
    page.add_init_script(
        """
        window.observed = 0;
        const { observe, disconnect } = ResizeObserver.prototype;
        ResizeObserver.prototype.observe = function (...given) { window.observed += 1; observe.apply(this, given); };
        ResizeObserver.prototype.disconnect = function () { window.observed -= 1; disconnect.apply(this); };
        """
    )
    page.reload()
    search_by_clip(page)
    first = page.locator("#hits > li").first
    first.get_by_role("button").evaluate("(button) => { for (let count = 0; count < 5; count += 1) button.click(); }")
    first.locator("figure").wait_for()
    page.wait_for_load_state("networkidle")
    assert first.locator("figure").count() == 1
    assert first.locator("figure video").count() == 2
    assert page.evaluate("window.observed") == 1
    first.get_by_role("button").evaluate("(button) => { for (let count = 0; count < 3; count += 1) button.click(); }")
    page.wait_for_load_state("networkidle")
    assert first.locator("figure").count() == 0
    assert first.locator("video").count() == 1
    assert page.evaluate("window.observed") == 0
    open_first(page)
    page.get_by_label("Sinkhorn", exact=True).check()
    page.get_by_text("5 of 5 clips by Sinkhorn.").wait_for()
    assert page.evaluate("window.observed") == 0


def test_the_keyboard_alone_suffices(page: playwright.Page) -> None:
    focus = "document.activeElement"

    def press(key: str, until: str) -> None:
        for _ in range(60):
            page.keyboard.press(key)
            if page.evaluate(until):
                return
        raise AssertionError(f"no {until} after 60 times {key}")

    press("Tab", f"{focus}.id === 'file'")
    press("Tab", f"{focus}.textContent === 'drum (kind 1)'")
    outline = page.evaluate(f"getComputedStyle({focus}).outlineStyle")
    assert outline != "none"
    page.keyboard.press("Enter")
    page.get_by_text("5 of 5 clips by DTW").wait_for()
    press("Tab", f"{focus}.name === 'metrics'")
    press("ArrowDown", f"{focus}.value === 'sinkhorn'")
    page.get_by_text("5 of 5 clips by Sinkhorn.").wait_for()
    press("Tab", f"{focus}.textContent === 'Show why'")
    page.keyboard.press("Enter")
    page.locator("figure").wait_for()
    press("Tab", f"{focus}.type === 'range'")
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    assert page.locator("figure output").inner_text().startswith("1.00 s")


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> str:
    """The source of axe-core, from the cache of the tests, or else from npm."""
    cache = request.config.cache.mkdir("axe")
    found = next(iter(cache.glob("*.tgz")), None)
    if found is None:
        if shutil.which("npm") is None:
            pytest.skip("there is no npm to fetch axe-core with")
        done = subprocess.run(["npm", "pack", AXE], cwd=cache, capture_output=True, timeout=60, check=False)
        found = next(iter(cache.glob("*.tgz")), None)
        if found is None:
            pytest.skip(f"npm cannot fetch {AXE}: {done.stderr.decode(errors='replace')[-200:]}")
    with tarfile.open(found) as package:
        content = package.extractfile("package/axe.min.js")
        assert content is not None
        return content.read().decode()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: playwright.Page, axe: str, url: str, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    search_by_clip(page)
    open_first(page)
    # Evaluated by the browser's own means, which the page's policy does not concern.
    page.evaluate(axe)
    check = "axe.run().then((found) => found.violations.map((one) => [one.impact, one.id, one.nodes[0].html]))"
    serious = [one for one in page.evaluate(check) if one[0] in ("serious", "critical")]
    assert serious == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    page.goto(f"{url}api")
    page.get_by_text("GET /api/search").wait_for()
    page.evaluate(axe)
    assert [one for one in page.evaluate(check) if one[0] in ("serious", "critical")] == []


def test_a_phone_shows_all_of_it(page: playwright.Page) -> None:
    page.set_viewport_size({"width": 375, "height": 700})
    search_by_clip(page)
    open_first(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


@pytest.mark.slow
@pytest.mark.parametrize(("name", "width", "height"), [("serve.png", 1000, 1920), ("serve-phone.png", 375, 1400)])
def test_the_pictures_of_the_docs(
    browser: playwright.Browser, url: str, tmp_path: Path, name: str, width: int, height: int
) -> None:
    """`SCAV_DOCS=http://127.0.0.1:8000/` takes them of the server there, such as the demo's, for the docs."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(TIMEOUT)
    page.goto(os.environ.get("SCAV_DOCS", url))
    page.locator("#clips button").first.click()
    page.locator("#hits > li").first.wait_for()
    wait_until(page, "[...document.querySelectorAll('#hits video')].every((one) => one.poster)")
    open_first(page)
    page.wait_for_load_state("networkidle")
    target = (DOCS if "SCAV_DOCS" in os.environ else tmp_path) / name
    page.screenshot(path=target)
    page.close()
    assert target.stat().st_size > 20_000
    assert (DOCS / name).is_file()
