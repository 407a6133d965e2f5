"""The parts of the page that single images, the confusion matrix and the solver's records add."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from dsink_jax.report import write_report
from dsink_jax.report.gallery import load_examples, png_data_uri
from dsink_jax.report.run_figures import batch_shares_figure
from run_pages import CONFUSION, HOSTILE, NAMES, Page, some_examples, some_results, write_run, write_whole_run


def page_of(directory):
    return Page(write_report(directory).read_text(encoding="utf-8"))


def charts(page):
    return [attributes["aria-label"] for tag, attributes in page.elements if tag == "svg"]


def images(page):
    return [attributes for tag, attributes in page.elements if tag == "img"]


def pixels(uri):
    head, data = uri.split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data, validate=True))))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_whole_run(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def page(directory):
    return page_of(directory)


def test_confusions_in_words_by_hand(page):
    (words,) = [label for label in charts(page) if label.startswith("Confusion matrix of target")]
    assert "66.7 % on the diagonal" in words  # 20 of 30
    assert words.endswith("bird as car, 5 images; aeroplane as car, 2 images; car as bird, 2 images")


def test_confusion_counts_are_in_the_drawing(directory, page):
    drawing = (directory / "figures" / "confusion_matrix.svg").read_text(encoding="utf-8")
    for row in CONFUSION:
        for count in row:
            assert f"<!-- {count} -->" in drawing or count == 0
    for name in NAMES:
        assert drawing.count(f"<!-- {name} -->") == 2


def test_solver_over_the_epochs(page):
    (words,) = [label for label in charts(page) if label.startswith("Mean over the batches of each epoch")]
    assert "iterations a batch: 10 at first, 30 at last" in words
    assert "L1 error of the class marginal: 1e-06 at first, 3.33e-07 at last" in words
    assert "converged batches (%): 75 at first, 100 at last" in words


def test_shares_of_the_batch_by_hand(page):
    (words,) = [label for label in charts(page) if label.startswith("Share of each class in the batch")]
    assert "given labels: most aeroplane (50.0 %), least bird (0.0 %)" in words
    assert "true labels: most aeroplane (50.0 %), least bird (16.7 %)" in words
    examples = some_examples()
    for name, key in (
        ("mean f_N", "batch_noise_robust"),
        ("mean f", "batch_target"),
        ("mean f_L", "batch_imbalance_robust"),
        ("mean Q", "batch_surrogate"),
    ):
        means = [sum(row[c] for row in examples[key]) / 6 for c in range(3)]
        most = max(range(3), key=means.__getitem__)
        assert f"{name}: most {NAMES[most]} ({100 * means[most]:.1f} %)" in words


def test_rows_of_the_batch(page):
    (table,) = [table for table in page.tables if table[0][0] == "image"]
    assert table[0] == ["image", "number", "true label", "given label", "f_N", "f", "Q"]
    examples = some_examples()
    for row, cells in zip((1, 5, 0), table[1:], strict=True):
        expected = ["", str(100 + row)]
        expected += [NAMES[examples[f"batch_{kind}"][row]] for kind in ("true", "given")]
        for model in ("noise_robust", "target", "surrogate"):
            p = examples[f"batch_{model}"][row]
            expected.append(f"{NAMES[p.argmax()]} ({100 * p.max():.1f} %)")
        assert cells == expected


def test_nothing_is_said_of_true_labels_where_none_was_made_wrong(tmp_path):
    directory = write_whole_run(tmp_path)
    results = json.loads((directory / "results.json").read_text())
    results["data"]["noise"] = "none"
    (directory / "results.json").write_text(json.dumps(results))
    text = "".join(page_of(directory).text)
    assert "No label was made wrong on purpose: whether they are right is not known here." in text
    for verdict in ("labels are wrong", "label is wrong", "labels are true", "label is true", "✓", "✗"):
        assert verdict not in text, verdict


def test_gallery_in_its_order(page):
    text = "".join(page.text)
    assert "3 of the 4 given labels are wrong; 2 of the 4 proposed labels are true." in text
    items = text[text.index("proposed labels are true.") : text.index("Settings")]
    expected = [
        "given: car (< 0.1 %)proposed: aeroplane (99.1 %)✓ is the true label",
        "given: car (1.1 %)proposed: bird (75.2 %)✗ the given label is true",
        "given: aeroplane (2.0 %)proposed: car (50.0 %)✗ true: bird",
        "given: bird (30.0 %)proposed: aeroplane (40.0 %)✓ is the true label",
    ]
    assert items.split("\n")[1:5] == expected


def test_images_are_the_stored_ones(page):
    examples = some_examples()
    stored = [*examples["shown_images"], *examples["suspect_images"]]
    for attributes, image in zip(images(page), stored, strict=True):
        np.testing.assert_array_equal(pixels(attributes["src"]), image)
    assert images(page)[0]["alt"] == "training image 101, given label car"
    assert images(page)[-1]["alt"] == "training image 203, given label bird"


@pytest.mark.parametrize("channels", [1, 2])
def test_images_of_other_channels_are_grey(channels):
    image = np.random.default_rng(1).integers(0, 256, (8, 8, channels), np.uint8)
    np.testing.assert_array_equal(pixels(png_data_uri(image)), image[..., 0])


@pytest.mark.parametrize("image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32)])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ValueError, match=r"uint8 \[H, W, channels\], got"):
        png_data_uri(image)


def test_self_contained(page):
    assert not page.tags & {"script", "link", "iframe"}
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href"):
                assert value.startswith(("#", "data:image/png;base64,")), (tag, name)
            assert not name.startswith("on"), (tag, name)
            assert "url(http" not in (value or "")


def test_hostile_class_names_are_escaped(tmp_path):
    names = [HOSTILE, r"$\frac$ 鳥", '" onload="alert(1)']
    write_whole_run(tmp_path, some_examples(names), names)
    page = page_of(tmp_path)
    assert not page.tags & {"script", "b"}
    assert all(not name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert f"given: {names[0]} (2.0 %)" in "".join(page.text)
    assert f"given label {names[2]}" in images(page)[-1]["alt"]


def test_a_hundred_classes(tmp_path):
    results = some_results()
    rng = np.random.default_rng(0)
    matrix = rng.multinomial(100, np.ones(100) / 100, 100)
    results["data"] |= {"num_classes": 100, "clean_counts": [5] * 100, "noisy_counts": [5] * 100}
    results["models"]["target"] |= {"per_class": [0.5] * 100, "confusion_matrix": matrix.tolist()}
    page = page_of(write_run(tmp_path, results))
    (words,) = [label for label in charts(page) if label.startswith("Confusion")]
    wrong = matrix - np.diag(np.diag(matrix))
    assert f"{wrong.max()} images" in words
    assert (tmp_path / "report.html").stat().st_size < 1_000_000


def test_a_batch_of_a_hundred_classes_is_drawn_in_groups(tmp_path):
    rng = np.random.default_rng(0)
    labels = {"given labels": np.array([0, 4, 5, 99]), "true labels": np.array([0, 1, 2, 10])}
    rows = rng.dirichlet(np.ones(100), 4)
    names = [str(c) for c in range(100)]
    words = batch_shares_figure(labels, {"mean f": rows}, names, tmp_path / "batch.svg")
    assert "given labels: most 0 to 4 (50.0 %), least 10 to 14 (0.0 %)" in words
    assert "true labels: most 0 to 4 (75.0 %), least 5 to 9 (0.0 %)" in words
    groups = [rows[:, start : start + 5].sum() / 4 for start in range(0, 100, 5)]
    most = 5 * int(np.argmax(groups))
    assert f"mean f: most {most} to {most + 4} ({100 * max(groups):.1f} %)" in words


# Directories of before, and files that are not whole.


def test_a_directory_without_the_new_files(tmp_path):
    page = page_of(write_run(tmp_path))
    assert len(charts(page)) == 4
    assert images(page) == []
    text = "".join(page.text)
    assert "Sinkhorn" not in text and "suspicious" not in text


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "empty", "another"])
def test_a_damaged_file_of_examples_is_left_out(tmp_path, damage):
    write_whole_run(tmp_path)
    path = tmp_path / "examples.npz"
    if damage == "another":
        np.savez(path, something=np.zeros(3))
    else:
        whole = path.read_bytes()
        flipped = whole[:200] + bytes(255 - byte for byte in whole[200:1500]) + whole[1500:]
        damaged = {"cut": whole[:900], "flipped": flipped, "text": b"no archive", "empty": b""}
        path.write_bytes(damaged[damage])
    assert load_examples(tmp_path) is None
    page = page_of(tmp_path)
    assert images(page) == []
    assert any(label.startswith("Confusion") for label in charts(page))


def test_few_images_are_no_error(tmp_path):
    write_whole_run(tmp_path, some_examples(suspects=1))
    assert len(images(page_of(tmp_path))) == 4
