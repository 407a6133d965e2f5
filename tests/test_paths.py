"""Addresses are refused before they become folders of that name; everything else is a path."""

import pathlib

import pytest

from dsink_jax.errors import InputError
from dsink_jax.paths import check_local_path

ADDRESSES = [
    "gs://bucket/x",
    "s3://bucket/x",
    "file:///x",
    "file:/x",
    "hdfs://host:9000/x",
    "https://host/x.npz",
]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("kind", [str, pathlib.Path])  # pathlib leaves one slash of two
def test_addresses(address, kind):
    with pytest.raises(InputError, match=r"^--output \w+:/.*: only places on this machine") as caught:
        check_local_path(kind(address), "--output")
    assert "\n" not in str(caught.value) and "local folder" in str(caught.value)


@pytest.mark.parametrize(
    "path", ["runs/x", "/x", "~/x", ".", "", "C:/x", "a:b/c", "runs/seed:1/x", "gs", "./gs://x"]
)
def test_paths(path):
    check_local_path(path, "--output")
