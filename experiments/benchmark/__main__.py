"""Command line: `python -m experiments.benchmark --parts solver,step --quick`."""

import argparse
import dataclasses
import importlib
import importlib.util
import os
import pathlib
import time
import warnings
from collections.abc import Sequence

from dsink_jax.errors import InputError, check_known
from dsink_jax.flags import flag
from dsink_jax.paths import check_local_path
from experiments.benchmark.settings import PARTS, Settings

_MODULES = {
    "solver": "solvers",
    "step": "steps",
    "pipeline": "loop_speed",
    "startup": "startup",
    "cifar10": "cifar10",
}
_NEEDS = {
    "solver": ("torch", "POT"),
    "step": (),
    "pipeline": ("torch",),
    "startup": ("torch",),
    "cifar10": (),
}
_IMPORT_NAMES = {"torch": "torch", "POT": "ot"}


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """Reads the flags.

    Raises:
      InputError: for an unknown part, or a data folder that is none.
    """
    default = Settings()
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmark", description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help="some of %(default)s")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--output", type=pathlib.Path, default=default.output, help="folder, %(default)s")
    parser.add_argument("--data-dir", type=pathlib.Path, help="folder with CIFAR-10, for the part cifar10")
    given = parser.parse_args(arguments)
    chosen = given.parts.split(",")
    for part in chosen:
        check_known("part", part, PARTS)
    for name in ("output", "data_dir"):
        if (path := getattr(given, name)) is not None:
            check_local_path(path, flag(name))
    if given.data_dir is not None and not given.data_dir.is_dir():
        raise InputError(f"--data-dir {given.data_dir} is no folder; give the one that holds CIFAR-10.")
    return Settings(
        tuple(part for part in PARTS if part in chosen), given.quick, given.output, given.data_dir
    )


def check_packages(parts: Sequence[str]) -> None:
    """Raises `InputError`, naming the extra, if the parts need a package that is not installed."""
    needed = dict.fromkeys(package for part in parts for package in _NEEDS[part])
    missing = [name for name in needed if importlib.util.find_spec(_IMPORT_NAMES[name]) is None]
    if missing:
        raise InputError(f'Not installed: {", ".join(missing)}. Run: pip install ".[benchmark]"')


def run(settings: Settings) -> str:
    """Measures, writes the results, and returns their page.

    Raises:
      InputError: if a package is missing, or the folder cannot be made.
    """
    check_packages(settings.parts)
    # PyTorch's idle threads would otherwise spin on the cores that others are timed on.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from experiments.benchmark import report
    from experiments.output_folder import make_output

    make_output(settings.output)
    load, started = report.load(), time.monotonic()
    rows, remarks, page = [], [], ""
    for number, part in enumerate(settings.parts, start=1):
        print(part, flush=True)
        found = importlib.import_module(f"experiments.benchmark.{_MODULES[part]}").measure(settings)
        rows += found[0]
        remarks += found[1]
        # After every part, so that a run that is stopped leaves what it has measured.
        measured = dataclasses.replace(settings, parts=settings.parts[:number])
        page = report.write(measured, rows, remarks, {"load": load, "seconds": time.monotonic() - started})
    return page


def main() -> None:
    """Runs the benchmark from the command line of this process."""
    from experiments.command_line import errors_for_people

    with errors_for_people():
        settings = parse()
        warnings.filterwarnings(
            "ignore", message="JAXopt is no longer maintained", category=DeprecationWarning
        )
        print("\n" + run(settings))


if __name__ == "__main__":
    main()
