"""Every notebook is converted from its source and executed."""

import pathlib
import time

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

SOURCES = sorted((pathlib.Path(__file__).parents[1] / "notebooks").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_notebook_runs(source, tmp_path):
    notebook = jupytext.read(source)
    started = time.monotonic()
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert time.monotonic() - started < 120
    nbformat.validate(notebook)
    assert len(nbformat.writes(notebook)) < 500_000
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert outputs, "the notebook shows nothing"
    assert not [output for output in outputs if output.output_type == "error"]


def test_there_are_notebooks():
    assert SOURCES
