"""Host memory of a process, as Linux tells it."""

import pathlib
import resource


def resident_mib(process: int | str = "self") -> float:
    """MiB that are in memory now; 0 for a process that has ended."""
    pages = _read(process, "statm").split()
    return int(pages[1]) * resource.getpagesize() / 2**20 if pages else 0.0


def peak_mib(process: int | str = "self") -> float:
    """MiB that were in memory at most; 0 for a process that has ended."""
    # Not getrusage: its peak is carried over from the process that started this one.
    lines = _read(process, "status").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0) / 1024


def _read(process, name):
    try:
        return pathlib.Path(f"/proc/{process}/{name}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
