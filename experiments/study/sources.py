"""What the cells of a study are made from, and what of it cannot be had."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from dsink_jax.data import is_there, load, load_human_labels
from dsink_jax.data.sources import data_directory
from dsink_jax.errors import InputError
from experiments.dataset import human_kind
from experiments.study.runs import Cell


class Source(NamedTuple):
    """Images and labels that corrupted sets are drawn from.

    Attributes:
      dataset: name of the data set.
      human: kind of its human labels; None where labels are made wrong by chance.
    """

    dataset: str
    human: str | None


def source_of(cell: Cell) -> Source:
    """What a cell is drawn from."""
    return Source(cell.config.dataset, human_kind(cell.config))


def cannot_be_had(cells: Sequence[Cell]) -> dict[Source, InputError]:
    """Why some cells cannot be drawn, before any is trained; images that are not here are downloaded."""
    found = _each(cells, load)
    return {source: error for source, error in found.items() if error is not None}


def not_here(cells: Sequence[Cell]) -> list[str]:
    """What would have to be downloaded or is missing, a line each, without a download."""
    errors = _each(cells, _would_be_downloaded).values()
    return list(dict.fromkeys(str(error).splitlines()[0] for error in errors if error is not None))


def _each(cells, fetch: Callable):
    """The error of each source, if it has one; data that is not here is fetched once."""
    folder = cells[0].config.data_dir if cells else None
    images: dict[str, InputError | None] = {}
    found = {}
    for source in dict.fromkeys(map(source_of, cells)):
        name = source.dataset
        if name not in images:
            images[name] = None if is_there(name, folder) else _error(fetch, name, folder)
        found[source] = images[name]
        if found[source] is None and source.human is not None:
            found[source] = _error(load_human_labels, name, source.human, folder)
    return found


def _would_be_downloaded(dataset, folder):
    raise InputError(f"{dataset} is not in {data_directory(folder)}: it would be downloaded.")


def _error(act, *arguments):
    try:
        act(*arguments)
    except InputError as error:
        return error
    return None
