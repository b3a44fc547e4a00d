"""The report in a real browser: no error, sorting, zooming, and nothing wider than the window.

Needs Debian's chromium (`apt-get install chromium`), as `.ci/run` installs it.
"""

import contextlib
import pathlib
import shutil

import made_reports
import numpy as np
import pytest
from answers import CLASSES
from PIL import Image

from clevit_jax.analysis.report import page, write

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield found
        found.close()


@pytest.fixture(scope="module")
def files(answered, tmp_path_factory):
    """Pages from disk: a real run's, and made ones of 200 and 1938 classes."""
    folder = tmp_path_factory.mktemp("reports")
    paths = {4: answered / write.REPORT_FILE}
    for classes in (200, 1938):
        paths[classes] = folder / f"{classes}.html"
        paths[classes].write_text(page.render_page(made_reports.content(classes)), encoding="utf-8")
    return paths


@pytest.fixture
def opened(browser, files):
    """`opened(classes, width, scheme)` -> the page; no error may have been logged at the end."""
    errors = []
    with contextlib.ExitStack() as stack:

        def open_page(classes, width=1400, scheme="light"):
            context = browser.new_context(
                viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
            )
            stack.callback(context.close)
            tab = context.new_page()
            tab.on("console", lambda message: errors.append(f"{message.type}: {message.text}"))
            tab.on("pageerror", lambda error: errors.append(str(error)))
            tab.on("dialog", lambda dialog: errors.append(f"dialog {dialog.message}"))
            tab.on("request", lambda request: request.url.startswith(("file:", "data:"))
                   or errors.append(f"asks for {request.url}"))  # fmt: skip
            tab.goto(files[classes].as_uri())
            tab.wait_for_selector("canvas[data-matrix][data-view]")
            return tab

        yield open_page
    assert errors == []


def view(tab):
    """Left, top and size of the window onto the matrix, in cells."""
    return [float(n) for n in tab.get_attribute("canvas[data-matrix]", "data-view").split()]


def column(tab, table, number):
    return tab.eval_on_selector_all(
        f"[{table}] tbody tr", f"rows => rows.map(row => row.cells[{number}].textContent.trim())"
    )


def ink(tab, selector, tmp_path):
    """Distinct colours of an element on the screen: of nothing there are one or two."""
    path = tmp_path / "element.png"
    tab.locator(selector).screenshot(path=path)
    with Image.open(path) as image:
        return len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0))


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (400, "dark")])
@pytest.mark.parametrize("classes", [4, 1938])
def test_it_fits_the_window(opened, tmp_path, classes, width, scheme):
    tab = opened(classes, width, scheme)
    wide = tab.evaluate("""() => [...document.querySelectorAll('body *')].filter(
        e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll')
    ).map(e => e.outerHTML.slice(0, 80))""")
    assert wide == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    level = np.mean([int(n) for n in ground[4:-1].split(",")])
    assert (level > 200) == (scheme == "light")
    for selector in ("canvas[data-matrix]", "canvas[data-embedding]", ".chart >> nth=0"):
        assert ink(tab, selector, tmp_path) > 8, selector


def test_images_are_shown(opened):
    tab = opened(4)
    widths = tab.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
    assert len(widths) > 5
    assert min(widths) > 0


def test_names_are_shown_as_they_are(opened):
    assert sorted(column(opened(4), "data-classes", 1)) == sorted(CLASSES)


def test_sorting(opened):
    tab = opened(200)
    heading = "[data-classes] thead button:text('{}')"
    tab.click(heading.format("Recall"))
    shares = [float(text.split()[0]) for text in column(tab, "data-classes", 3)]
    assert shares == sorted(shares, reverse=True)
    assert len(set(shares)) > 2
    tab.click(heading.format("Recall"))
    assert [float(text.split()[0]) for text in column(tab, "data-classes", 3)] == sorted(shares)
    tab.click(heading.format("Class"))
    names = column(tab, "data-classes", 1)
    assert names == sorted(names)
    assert tab.get_attribute("[data-classes] th:nth-child(2)", "aria-sort") == "ascending"
    images = [int(text) for text in column(tab, "data-pairs", 2)]
    assert images == sorted(images, reverse=True)  # the most confused pairs first, unasked


def test_groups_are_shown_and_sorted(opened):
    tab = opened(200)
    made = made_reports.content(200)
    shares = made.scores[0].evaluation.levels
    said = tab.locator("#result").inner_text()
    assert f"In the right group: family {100 * shares['family']:.2f} %, genus " in said
    tables = tab.locator("[data-groups]")
    assert [tables.nth(k).locator("tbody tr").count() for k in range(2)] == [4, 20]
    tables.nth(1).locator("thead button", has_text="Mistakes inside").click()
    inside = tables.nth(1).locator("tbody tr td:nth-child(6)").all_inner_texts()
    assert list(map(int, inside)) == sorted(map(int, inside), reverse=True)
    assert sum(map(int, inside)) == made.groups[1].mistakes_inside > 0


def test_zooming(opened):
    classes = 1938
    tab = opened(classes)
    assert view(tab) == [0, 0, classes]
    canvas = tab.locator("canvas[data-matrix]")
    assert canvas.get_attribute("data-named") == "false"
    for _ in range(20):
        tab.click("[data-zoom=in]")
    assert view(tab)[2] == 4
    assert canvas.get_attribute("data-named") == "true"
    tab.click("[data-zoom=out]")
    left, top, size = view(tab)
    assert size > 4
    # Keys and dragging move the window.
    canvas.focus()
    tab.keyboard.press("ArrowRight")
    assert view(tab)[0] > left
    assert view(tab)[1:] == [top, size]
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    tab.mouse.move(box["x"] + 400, box["y"] + 400)
    before = view(tab)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 300, box["y"] + 350)
    tab.mouse.up()
    assert view(tab)[0] > before[0]
    assert view(tab)[1] > before[1]
    # The wheel zooms about the pointer: what lies under it stays.
    before = view(tab)
    tab.mouse.wheel(0, -100)
    tab.wait_for_function("old => document.querySelector('[data-matrix]').dataset.view !== old",
                          arg=" ".join(f"{n:.3f}" for n in before))  # fmt: skip
    assert view(tab)[2] == pytest.approx(0.8 * before[2], abs=0.01)
    tab.click("[data-zoom=all]")
    assert view(tab) == [0, 0, classes]


def test_a_pair_is_found_in_the_matrix(opened):
    """A click on the first pair goes to its cell, which says what the row says."""
    tab = opened(1938)
    row = tab.locator("[data-pairs] tbody tr").first
    right, taken, images = (row.locator("th, td").nth(k).inner_text() for k in range(3))
    row.locator("button").click()
    left, top, size = view(tab)
    assert size == 12
    assert left == top == 0  # the most confused pairs lie in the first corner
    said = tab.locator("[data-cell]").inner_text()
    assert said.startswith(f"{right} predicted as {taken}: {images} of ")
    tab.select_option("[data-order]", "number")
    row.locator("button").click()
    wanted = int(row.get_attribute("data-label"))
    assert abs(view(tab)[1] + 6 - wanted - 0.5) < 1 or view(tab)[1] in (0, 1938 - 12)


def test_reading_a_chart_and_the_embedding(opened):
    tab = opened(200)
    chart = tab.locator(".chart svg").first
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    tab.mouse.move(box["x"] + box["width"] - 12, box["y"] + 60)
    legend = tab.locator(".chart .legend").first.inner_text()
    last = made_reports.content(200).charts[0].curves[0].points[-1]
    assert f"step {last[0]}" in legend
    assert f"training {last[1]:.4g}" in legend
    tab.select_option("[data-class]", "7")
    canvas = tab.locator("canvas[data-embedding]")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    made = made_reports.content(200).embedding
    x, y = made.points[21]  # the first image of class 7
    tab.mouse.move(
        box["x"] + 12 + x * (box["width"] - 24), box["y"] + 12 + y * (box["height"] - 24)
    )
    said = tab.locator("[data-point]").inner_text()
    assert said.endswith(".jpg")


def test_without_scripts(browser, files):
    """Numbers, tables and pictures are there all the same."""
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(pathlib.Path(files[4]).as_uri())
    assert tab.locator("[data-classes] tbody tr").count() == 4
    assert "%" in tab.locator(".headline strong").inner_text()
    context.close()
