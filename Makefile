# make demo | test | check | bench | faults | readme | hub | space | pi-emulated | clean | distclean
# Variables: SOURCE="log.csv 'my log.csv' anima.db" (real logs to learn from), MAPPING="log=log.yaml" (what the columns of
# log.csv are), TIMEZONE=Europe/Berlin (of their times without a zone),
# HUB=URL (publish there instead of locally),
# RECIPE=recipes/demo.yaml, OUT=artifacts/demo, PYTHON=python3, SEED=0, MINUTES=10 (of make faults).

PYTHON ?= python3
RECIPE ?= recipes/demo.yaml
OUT ?= artifacts/demo
SEED ?= 0
MINUTES ?= 10
SOURCE ?=
MAPPING ?=
TIMEZONE ?=
HUB ?=
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: demo test check format bench faults readme hub space pi-emulated setup clean distclean

demo: setup
	@$(PY) -m recipes.run --recipe $(RECIPE) --out $(OUT) $(if $(SOURCE),--source $(SOURCE)) $(if $(MAPPING),--mapping $(MAPPING)) $(if $(TIMEZONE),--timezone $(TIMEZONE)) $(if $(HUB),--hub $(HUB))

test: setup
	@$(PY) -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: setup
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy --num-workers 2
	@$(VENV)/bin/lint-imports

format: setup
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix .

readme: setup
	@$(PY) -m recipes.readme --out $(OUT)

bench: setup
	@$(PY) -m benchmarks.run --out artifacts/bench.json
	@$(PY) -m benchmarks.building --curve
	@$(PY) -m benchmarks.publishing
	@$(PY) -m benchmarks.local_hub --requests 100000

# A thousand failing networks, five hundred kills of updater and publisher, and a device that is killed for MINUTES.
faults: setup
	@$(PY) -m benchmarks.faults --schedules 1000 --kills 500 --hub-kills 20 --minutes $(MINUTES) --workers 2 --seed $(SEED) --out artifacts/faults.json

hub: setup
	@$(PY) -m recipes.local_hub --recipe $(RECIPE)

space: setup
	@$(PY) -m recipes.space --recipe $(RECIPE) --out $(OUT)

# The wheel and the student on an emulated Cortex-A53; needs qemu-user-static, and nobody else needs it.
pi-emulated: setup
	@$(PY) -m recipes.pi_emulated --student $(OUT)/student

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt recipes/setup.sh
	@bash recipes/setup.sh $(PYTHON) $(VENV)

clean:
	rm -rf artifacts dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

distclean: clean
	rm -rf .venv
