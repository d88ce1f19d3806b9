# One word per chore. Each chore makes the environment it needs; CI runs `make test`.
.PHONY: check test lint types demo bench-quick sim dev wheel clean

PYTHON ?= python3
SEED ?= 1

ROOMS = protocol manager worker cli batch_scripts
SOURCES := $(shell find client $(ROOMS) -name '*.py' -o -name 'py.typed' -o -name '*.in')
BIN = .venv/bin
INSTALLED = .venv-wheel/bin

# A folder of this tree is importable by its own name from here, as a second copy. Nobody may.
export PYTHONSAFEPATH = 1

check: lint
	$(BIN)/python -m pytest -m "not slow"

test: lint
	$(BIN)/python -m pytest

lint: dev types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=.types $(BIN)/lint-imports --no-cache

# mypy and import-linter run no import hooks, so they cannot see an editable install whose folders
# are mapped. Show them the installed tree as links instead.
types:
	@mkdir -p .types/wqueue
	@find .types -xtype l -delete
	@ln -sfn $(CURDIR)/client/* .types/wqueue/
	@for room in $(ROOMS); do ln -sfn $(CURDIR)/$$room .types/wqueue/; done

# Both run on an installed wheel: the editable install costs every interpreter 11 ms at its start.
demo: wheel
	@env -u PYTHONSAFEPATH $(INSTALLED)/python demo/run.py

bench-quick: wheel
	@env -u PYTHONSAFEPATH PYTHONPATH=demo $(INSTALLED)/python bench/quick.py

sim: dev
	PYTHONPATH=tests $(BIN)/python -m simulation $(SEED)

dev: .venv/made-from-pyproject

.venv/made-from-pyproject: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

wheel: .venv-wheel/made-from-sources

.venv-wheel/made: pyproject.toml
	$(PYTHON) -m venv .venv-wheel
	$(INSTALLED)/python -m pip install --quiet --upgrade pip
	$(INSTALLED)/python -m pip install --quiet build
	@touch $@

# Built from the sdist, because `pip install .` leaves a build folder from which the next wheel
# would take modules that are no more.
.venv-wheel/made-from-sources: .venv-wheel/made $(SOURCES) README.md LICENSE
	@rm -rf .venv-wheel/dist
	$(INSTALLED)/python -m build --outdir .venv-wheel/dist . > .venv-wheel/build.log 2>&1 \
	  || { cat .venv-wheel/build.log; exit 1; }
	$(INSTALLED)/python -m pip install --quiet .venv-wheel/dist/*.whl
	$(INSTALLED)/python -m pip install --quiet --no-deps --force-reinstall .venv-wheel/dist/*.whl
	@touch $@

clean:
	rm -rf .types .venv .venv-wheel build dist demo-output *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
