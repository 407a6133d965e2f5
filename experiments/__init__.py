"""Experiments: configuration and order of work only."""

import importlib.util
import sys

if _missing := [name for name in ("tyro", "pandas") if importlib.util.find_spec(name) is None]:
    print(f'error: Experiments need {", ".join(_missing)}: pip install ".[experiments]"', file=sys.stderr)
    raise SystemExit(2)
