"""The page of a run in a browser, wide and on a phone."""

import shutil

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `test`)")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (Debian: apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def page_path(undisturbed):
    assert (undisturbed / "examples.npz").stat().st_size < 1_000_000
    return undisturbed / "report.html"


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        # Chromium has no sandbox where it runs as root.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[(1200, "light"), (1200, "dark"), (390, "light")], ids=str)
def page(request, browser, page_path):
    """The page as it is shown, without a word on the console and without asking for another file."""
    width, scheme = request.param
    page = browser.new_page(viewport={"width": width, "height": 850}, color_scheme=scheme)
    said, asked = [], []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_path.as_uri())
    yield page
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [page_path.as_uri()]
    page.close()


def test_body_is_as_wide_as_the_window(page):
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_images_are_shown_and_described(page):
    images = page.evaluate("[...document.images].map(image => [image.naturalWidth, image.alt])")
    assert len(images) == 52  # 12 of the batch and 40 suspicious ones
    assert all(width > 0 and alt for width, alt in images)


def test_charts_are_shown_and_described(page):
    charts = page.evaluate(
        "[...document.querySelectorAll('figure svg')].map(chart => [chart.getAttribute('role'), "
        "chart.getAttribute('aria-label'), chart.getBoundingClientRect().width])"
    )
    assert len(charts) == 7
    for role, label, width in charts:
        assert role == "img"
        assert len(label.split(": ", 1)[1]) > 20
        assert width > 300


def test_page_says_what_it_is(page):
    assert page.title() == "D-SINK on digits"
    assert page.evaluate("document.documentElement.lang") == "en"
    headings = page.eval_on_selector_all("h1, h2", "all => all.map(heading => heading.textContent)")
    assert headings == [
        "D-SINK on digits",
        "Sinkhorn solver over training",
        "A batch at the end of training",
        "The most suspicious labels",
        "Settings",
        "Versions",
    ]


def test_text_is_dark_on_white(page):
    colours = page.evaluate(
        "(({backgroundColor, color}) => [backgroundColor, color])(getComputedStyle(document.documentElement))"
    )
    assert colours == ["rgb(255, 255, 255)", "rgb(26, 26, 26)"]
