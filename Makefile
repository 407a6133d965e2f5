# Each target does its own set-up in .venv; a machine needs Python 3.11 or newer, pip and make.
PYTHON ?= python3
RUN = .venv/bin/python

.PHONY: digits test slow lint docs lock clean

digits: .venv/ready  ## the whole method on embedded data
	$(RUN) -m experiments.digits

test: .venv/ready  ## the quick tests and doctests, minutes on two cores
	$(RUN) -m pytest -n 2 --dist loadfile --durations=15 -m "not slow"

slow: .venv/ready  ## the others: whole commands, kills, several processes, notebooks
	$(RUN) -m pytest -n 2 --dist loadfile --durations=15 -m slow

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

docs: .venv/ready  ## the documentation site in .site, needs no network
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[experiments,test,docs,dev]"
	touch $@

lock: .venv/ready  ## write the versions that are installed now as the constraints
	$(RUN) -m pip freeze --exclude-editable --exclude pip --exclude setuptools > constraints.txt

clean:
	rm -rf .venv .site build dist *.egg-info
