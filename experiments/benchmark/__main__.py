"""Command line: `python -m experiments.benchmark --parts solver,step --quick`."""

import dataclasses
import importlib
import importlib.util
import os
import time
import warnings
from collections.abc import Sequence

from dsink_jax.errors import InputError
from dsink_jax.flags import read_flags
from experiments.benchmark.settings import Settings

# Of each part: its module, and the packages that it needs under the names they are imported by.
_PARTS = {
    "solver": ("solvers", {"torch": "torch", "POT": "ot"}),
    "step": ("steps", {}),
    "pipeline": ("loop_speed", {"torch": "torch"}),
    "startup": ("startup", {"torch": "torch"}),
    "cifar10": ("cifar10", {}),
}


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """Reads the flags; see `read_flags`."""
    return read_flags(Settings, arguments, description=__doc__)


def run(settings: Settings) -> str:
    """Measures, writes the results, and returns their page.

    Raises:
      InputError: if a package is missing, or the folder cannot be made.
    """
    needed = {name: module for part in settings.chosen for name, module in _PARTS[part][1].items()}
    missing = [name for name, module in needed.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise InputError(f'Not installed: {", ".join(missing)}. Run: pip install ".[benchmark]"')
    # PyTorch's idle threads would otherwise spin on the cores that others are timed on.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from experiments.benchmark import report
    from experiments.output_folder import make_output

    make_output(settings.output)
    load, started = report.load(), time.monotonic()
    rows, remarks, page = [], [], ""
    for number, part in enumerate(settings.chosen, start=1):
        print(part, flush=True)
        found = importlib.import_module(f"experiments.benchmark.{_PARTS[part][0]}").measure(settings)
        rows += found[0]
        remarks += found[1]
        # After every part, so that a run that is stopped leaves what it has measured.
        measured = dataclasses.replace(settings, parts=",".join(settings.chosen[:number]))
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
