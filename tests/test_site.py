"""The documentation site builds without a warning and without network, and has every public name."""

import importlib
import os
import pathlib
import re
import subprocess
import sys
import zlib

import pytest

import dsink_jax

pytest.importorskip("mkdocs")
pytest.importorskip("mkdocstrings")

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


def public_modules():
    """The package, its subpackages and its modules that list what is public."""
    yield "dsink_jax"
    for path in sorted((ROOT / "dsink_jax").iterdir()):
        if path.is_dir():
            public = (path / "__init__.py").exists()
        else:
            public = path.suffix == ".py" and re.search(r"^__all__ ?=", path.read_text(), re.M)
        if path.stem != "__init__" and (public or path.stem in dsink_jax._LAZY_SUBPACKAGES):
            yield f"dsink_jax.{path.stem}"


def public_names(module):
    module = importlib.import_module(module)
    own = (n for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__)
    return [name for name in getattr(module, "__all__", own) if not name.startswith("_")]


@pytest.mark.slow
def test_every_public_name_is_listed(site):
    inventory = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    entries = [line.split() for line in zlib.decompress(inventory).decode().splitlines()]
    pages = {entry[0]: entry[3].partition("#")[0] for entry in entries}
    modules = list(public_modules())
    assert len(modules) >= 8
    for module in modules:
        name = module.removeprefix("dsink_jax.")
        page = f"api/{name}.html"
        assert (site / page).exists(), f"{module} has no page: add `- api/{name}.md` to nav in mkdocs.yml"
        for public in public_names(module):
            if f"{module}.{public}" in modules:
                continue
            own_file = (ROOT / module.replace(".", "/") / f"{public}.py").exists()
            full = f"{module}.{public}.{public}" if own_file else f"{module}.{public}"
            assert pages.get(full) == page, f"{full} is not in the reference"


@pytest.mark.slow
def test_pages_of_the_root_and_guides_are_there(site):
    for page, title in {
        "index": "dsink-jax",
        "composing": "D-SINK in your own trainer",
        "own-networks": "A network, an optimiser, an augmentation of your own",
        "text-and-images": "Your own text or images",
        "scaling": "What D-SINK costs, and large data sets",
        "ARCHITECTURE": "Architecture",
        "CONTRIBUTING": "Contributing",
        "CHANGELOG": "Changelog",
        "results/main/index": "D-SINK beside its parts",
    }.items():
        text = (site / f"{page}.html").read_text()
        assert re.search(rf"<h1[^>]*>{title}<", text), page


@pytest.mark.slow
def test_links_lead_to_files_and_nothing_is_loaded_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert not re.findall(r'<(?:script|img|source)[^>]* src="https?:', text), page
        assert not re.findall(r'<link rel="stylesheet" href="https?:', text), page
        if page.name == "404.html":
            continue
        for target in re.findall(r'(?:href|src)="?([^"#?:>\s]+)(?=["#?>\s])', text):
            assert (page.parent / target).exists(), f"{page}: {target}"


@pytest.mark.slow
def test_doctests_are_shown_as_code(site):
    text = (site / "api" / "losses.html").read_text()
    assert "<blockquote>" not in text
    assert "[0.002 0.111]" in re.sub(r"<[^>]+>", "", text)
