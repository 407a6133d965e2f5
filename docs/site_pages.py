"""Pages of the site that are not files of this folder: of the repository's root, the results and the API."""

import ast
import os.path
import pathlib
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
FROM_ROOT = {"README.md": "index.md"} | {
    name: name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
}
OTHERS = ("results/**/*.md", "results/**/*.svg", "notebooks/*.py")


def public_names(module: str) -> list[str]:
    """What a module of dsink_jax lists in `__all__`, or else defines without an underscore."""
    path = ROOT.joinpath(*module.split("."))
    body = ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()).body
    for node in body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__":
            return ast.literal_eval(node.value)
    definitions = (node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef))
    return [name for name in definitions if not name.startswith("_")]


def api_page(module: str) -> str:
    """Title of the module and an entry for each public name that is not a module itself."""
    folder = ROOT.joinpath(*module.split("."))
    names = []
    for name in public_names(module):
        file = folder / f"{name}.py"
        if file.exists() and name in public_names(f"{module}.{name}"):
            # It hides the file of its own name when Python runs, and is hidden when the source is read.
            names.append(f"{name}.{name}")
        elif not file.exists() and not (folder / name).is_dir():
            names.append(name)
    options = "{members: false, show_root_heading: false, show_root_toc_entry: false}"
    entries = [f"::: {module}\n    options: {options}\n", *(f"::: {module}.{name}\n" for name in names)]
    return "\n".join([f"# {module}\n", *entries])


def on_files(files, config):
    """Adds the pages."""
    others = (path for pattern in OTHERS for path in sorted(ROOT.glob(pattern)))
    for path in [*(ROOT / name for name in FROM_ROOT), *others]:
        relative = path.relative_to(ROOT).as_posix()
        uri = FROM_ROOT.get(relative, relative)
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    for uri in re.findall(r"api/\w+\.md", str(config.nav)):
        name = pathlib.PurePath(uri).stem
        module = name if name == "dsink_jax" else f"dsink_jax.{name}"
        files.append(File.generated(config, uri, content=api_page(module)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turns links between files of the repository into links between pages of the site."""
    uri = page.file.src_uri
    here = next((source for source, target in FROM_ROOT.items() if target == uri), None)
    if here is None:
        here = uri if uri.startswith("results/") else f"docs/{uri}"

    def moved(match):
        target, _, anchor = match[2].partition("#")
        target = os.path.normpath(os.path.join(os.path.dirname(here), target))
        target = FROM_ROOT.get(target, target.removeprefix("docs/"))
        target = os.path.relpath(target, os.path.dirname(uri) or ".")
        return f"{match[1]}({target}{'#' + anchor if anchor else ''})"

    return re.sub(r"(\])\(([^)#:\s][^):\s]*)\)", moved, markdown)
