"""The studies: settings x models x seeds, declared in `catalogue`, run by `python -m experiments.study`."""
