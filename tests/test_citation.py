"""CITATION.cff says what the package and the README say."""

import pathlib
import re
import tomllib

import yaml

import dsink_jax

ROOT = pathlib.Path(__file__).parents[1]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_it_is_this_version_under_this_licence():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert CITATION["version"] == dsink_jax.__version__ == project["version"]
    assert CITATION["license"] == project["license"]
    assert CITATION["title"] == project["name"]
    assert CITATION["authors"] == [{"name": "The dsink-jax authors"}]
    assert {"cff-version", "message"} <= CITATION.keys()


def test_the_paper_is_that_of_the_readme():
    paper = CITATION["preferred-citation"]
    fields = dict(re.findall(r"^  (\w+) += \{(.*?)\}", (ROOT / "README.md").read_text(), re.S | re.M))
    authors = " and ".join(f"{each['family-names']}, {each['given-names']}" for each in paper["authors"])
    assert authors == re.sub(r"\s+", " ", fields["author"])
    assert (paper["title"], str(paper["year"]), paper["notes"]) == (
        fields["title"],
        fields["year"],
        fields["note"],
    )
