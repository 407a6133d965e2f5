import importlib.util
import re

import pytest

from dsink_jax.report import MissingMatplotlibError, align, percent, results_table, write_report
from run_pages import HOSTILE, NAN, Page, some_results, write_run


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory):
    """A run with its report written."""
    directory = write_run(tmp_path_factory.mktemp("run"))
    assert write_report(directory) == directory / "report.html"
    return directory


@pytest.fixture(scope="module")
def page(run_directory):
    return Page((run_directory / "report.html").read_text(encoding="utf-8"))


# The table in text.


def test_table_by_hand():
    assert results_table(some_results()).splitlines() == [
        "model             method            last  mean 10  best   many  medium   few  corrected  seconds",
        "-" * 96,
        "imbalance_robust  logit_adjustment  51.2     50.1  62.6   91.0    52.0  13.0       22.2       61",
        "noise_robust      elr               70.3     70.0  71.3   95.0       -   2.0          -       60",
        "target            elr + 3 D-SINK    88.9     87.6  89.0  100.0    77.7   0.0          -     3725",
    ]


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0.0"),
        (1.0, "100.0"),
        (0.1234, "12.3"),
        (0.99949, "99.9"),
        (NAN, "-"),
        (None, "-"),
        (1, "100.0"),
    ],
)
def test_percent(share, text):
    assert percent(share) == text


def test_align():
    rows = [("name", "kind", "n"), ("a", "long kind", "1"), ("longest", "k", "12.5")]
    assert align(rows, left=2).splitlines() == [
        "name     kind          n",
        "------------------------",
        "a        long kind     1",
        "longest  k          12.5",
    ]


def test_table_of_no_models():
    lines = results_table({"models": {}}).splitlines()
    assert len(lines) == 2
    assert lines[0].split()[:2] == ["model", "method"]
    assert set(lines[1]) == {"-"}


# The page.


def test_page_is_well_formed(page):
    assert page.declarations == ["doctype html"]
    assert {"html", "head", "title", "body", "h1", "table", "svg", "figure"} <= page.tags
    # Self-contained: nothing is fetched and nothing runs.
    assert not page.tags & {"script", "link", "img", "iframe"}
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href"):
                assert value.startswith("#"), (tag, name, value)
            assert not name.startswith("on"), (tag, name)


def test_page_states_the_data(page):
    text = "".join(page.text)
    assert "D-SINK on cifar10" in text
    assert "12,406 training images, imbalance ratio 100, noise symmetric, 35.8 % wrong labels" in text
    assert "10,000 balanced test images. 8 x cpu (x86_64, 2 cores)." in text


def test_page_has_the_numbers_of_the_table(page):
    results = page.tables[0]
    assert results == [
        [
            "model",
            "method",
            "last",
            "mean of last 10 evaluations",
            "best",
            "many",
            "medium",
            "few",
            "noisy corrected",
        ],
        ["imbalance_robust", "logit_adjustment", "51.2", "50.1", "62.6", "91.0", "52.0", "13.0", "22.2"],
        ["noise_robust", "elr", "70.3", "70.0", "71.3", "95.0", "-", "2.0", "-"],
        ["target", "elr + 3 D-SINK", "88.9", "87.6", "89.0", "100.0", "77.7", "0.0", "-"],
    ]


def test_page_has_settings_and_versions(page):
    settings, versions = page.tables[1:]
    assert settings == [["dataset", "cifar10"], ["alpha", "3.0"], ["flip", "True"], ["run_dir", "None"]]
    assert versions == [["python", "3.11.7"], ["jax", "0.10.2"]]


def test_page_has_four_described_figures(page, run_directory):
    drawings = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert [drawing["aria-label"] for drawing in drawings] == [
        "Training images of each class: by true label from 50 to 5; by observed label from 40 to 10",
        "Test accuracy over training: imbalance_robust 10.0 % at first and 30.0 % at last; "
        "noise_robust 10.0 % at first and 30.0 % at last; target 10.0 % at first and 30.0 % at last",
        "Test accuracy by class group: imbalance_robust: many 91.0 %, medium 52.0 %, few 13.0 %; "
        "noise_robust: many 95.0 %, medium - %, few 2.0 %; target: many 100.0 %, medium 77.7 %, few 0.0 %",
        "Test accuracy by class: imbalance_robust from 10.0 % (class 2) to 90.0 % (class 0); "
        "noise_robust from 0.0 % (class 2) to 90.0 % (class 0); "
        "target from 100.0 % (class 0) to 100.0 % (class 0)",
    ]
    assert all(drawing["role"] == "img" for drawing in drawings)
    files = sorted(file.name for file in (run_directory / "figures").iterdir())
    assert files == ["class_counts.svg", "group_accuracy.svg", "learning_curves.svg", "per_class.svg"]


def curves_of(path):
    """Points of the curves in a drawing: lines of three points or more, without those of the legend."""
    drawing = path.read_text(encoding="utf-8").split('<g id="legend_1">')[0]
    found = []
    for d, style in re.findall(r'<path d="([^"]*)"[^>]*style="([^"]*)"', drawing):
        numbers = [float(number) for number in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", d)]
        points = list(zip(numbers[::2], numbers[1::2], strict=True))
        if style.startswith("fill: none") and len(points) > 2:
            found.append(points)
    return found


def test_learning_curves_go_through_the_records(run_directory):
    curves = curves_of(run_directory / "figures" / "learning_curves.svg")
    # Three models with 10, 20 and 30 % at epochs 1, 2 and 3: straight lines, the same for all.
    assert len(curves) == 3
    for points in curves:
        (x1, y1), (x2, y2), (x3, y3) = points
        assert x3 - x2 == pytest.approx(x2 - x1, abs=1e-3)
        assert y3 - y2 == pytest.approx(y2 - y1, abs=1e-3)
        assert x2 > x1
        assert y2 < y1  # up on the page
        assert points == curves[0]


@pytest.mark.parametrize("unknown", [None, NAN])
def test_accuracies_by_class_are_drawn(tmp_path, unknown):
    # The second model has no accuracy for its middle class, and so no curve of three points.
    results = some_results()
    results["models"]["noise_robust"]["per_class"][1] = unknown
    write_report(write_run(tmp_path, results))
    falling, flat = curves_of(tmp_path / "figures" / "per_class.svg")
    heights = [y for _, y in falling]  # 90, 50 and 10 %
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=1e-3)
    assert heights[1] > heights[0]  # down on the page
    assert len({y for _, y in flat}) == 1  # 100 % each
    # Both share a scale: 100 % is a quarter of a step of 40 % above 90 %.
    assert heights[0] - flat[0][1] == pytest.approx((heights[1] - heights[0]) / 4, abs=1e-3)


def test_class_counts_are_drawn(run_directory):
    true, observed = curves_of(run_directory / "figures" / "class_counts.svg")
    levels = []
    for curve in (true, observed):
        levels.append(list(dict.fromkeys(y for _, y in curve)))  # of a staircase, from left to right
    (y50, y15, y5), (y40, y20, y10) = levels
    per_image = (y5 - y50) / 45
    assert per_image > 0
    for y, count in ((y15, 15), (y40, 40), (y20, 20), (y10, 10)):
        assert y == pytest.approx(y50 + (50 - count) * per_image, abs=1e-3)


def test_names_of_the_models_are_in_the_figures(run_directory):
    # Text is drawn as outlines, with what it says in a comment.
    for name in ("learning_curves", "per_class"):
        drawing = (run_directory / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        for model in ("imbalance_robust", "noise_robust", "target"):
            assert f"<!-- {model} -->" in drawing


def test_hostile_names_are_escaped(tmp_path):
    results = some_results(name=HOSTILE, noise=HOSTILE)
    results["models"] = {HOSTILE: results["models"]["target"] | {"method": HOSTILE}}
    write_run(tmp_path, results, settings={"dataset": HOSTILE, HOSTILE: 1})
    text = write_report(tmp_path).read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert "<script" not in text
    # It is shown as it is: name (in title and heading), noise, model, method, the setting's value and name.
    assert "".join(page.text).count(HOSTILE) == 7
    assert page.tables[0][1][:2] == [HOSTILE, HOSTILE]
    assert page.tables[1][0] == ["dataset", HOSTILE]


def test_page_is_written_anew(tmp_path):
    write_run(tmp_path)
    write_report(tmp_path)
    write_run(tmp_path, some_results(name="cifar100"))
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "D-SINK on cifar100" in "".join(page.text)


def test_equal_runs_give_equal_files(run_directory, tmp_path):
    write_report(write_run(tmp_path))
    for name in ("class_counts", "learning_curves", "per_class"):
        one, two = (
            (directory / "figures" / f"{name}.svg").read_bytes() for directory in (run_directory, tmp_path)
        )
        assert one == two


def test_drawings_find_what_they_refer_to(page, run_directory):
    # The drawings are made apart and share a page: what one refers to must not be another's.
    text = (run_directory / "report.html").read_text(encoding="utf-8")
    used = set(re.findall(r'href="#([^"]+)"', text)) | set(re.findall(r"url\(#([^)]+)\)", text))
    assert used
    for name in used:
        parts = re.split(rf'id="{re.escape(name)}"', text)[1:]
        assert parts, f"nothing is called {name}"
        definitions = {re.match(r"[^>]*>\s*(?:<rect[^>]*>)?", part)[0].strip() for part in parts}
        assert len(definitions) == 1, f"{name} is more than one thing"


def test_a_page_without_matplotlib_says_what_to_install(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *args: None if name == "matplotlib" else find(name, *args)
    )
    write_run(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(MissingMatplotlibError, match=r'pip install "dsink-jax\[report\]"'):
        write_report(tmp_path)
    assert sorted(tmp_path.iterdir()) == before  # no half of a report
    # The table needs none.
    assert "88.9" in results_table(some_results())
