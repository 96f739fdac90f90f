DATASET ?= calligraphy
PORT ?= 5151
FORMAT ?= imagefolder
TO ?= exports/$(DATASET)
ARGS ?=
BENCH ?= near_duplicates

CURATE := .venv/bin/curate
PYTHON_IN_VENV := .venv/bin/python

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo new scrape dedupe audit review retrain report export test lint bench clean

help: ## show this
	@echo 'make TARGET [DATASET=$(DATASET)] [ARGS="further options of the verb"]'
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: ## make .venv with everything needed (4 minutes, 7 GB; afterwards a moment)
	@scripts/setup.sh

demo: setup ## the whole loop on the bundled sample, to its report
	$(CURATE) demo $(ARGS)

new: setup ## a new data set: make new DATASET=pets ARGS='--class cat="cat photo" --class dog="dog photo"'
	$(CURATE) new $(DATASET) $(ARGS)

scrape: setup ## search for images and fetch them
	$(CURATE) scrape $(DATASET) $(ARGS)

dedupe: setup ## group exact and near-duplicates
	$(CURATE) dedupe $(DATASET) $(ARGS)

audit: setup ## judge every label by a model that did not see the image
	$(CURATE) audit $(DATASET) $(ARGS)

review: setup ## look at what was found and decide, in the FiftyOne App (PORT=5151)
	$(CURATE) review $(DATASET) --port $(PORT) $(ARGS)

retrain: setup ## train before and after, on the same holdout
	$(CURATE) retrain $(DATASET) $(ARGS)

report: setup ## write reports/DATASET/index.html
	$(CURATE) report $(DATASET) $(ARGS)

export: setup ## write the clean data set (FORMAT=imagefolder TO=exports/DATASET)
	$(CURATE) export $(DATASET) --format $(FORMAT) --to $(TO) $(ARGS)

test: setup ## run every test (ARGS='-k name' for some)
	@if scripts/chromium.sh; then $(PYTHON_IN_VENV) -m pytest $(ARGS); \
	else CURATE_SKIP_BROWSER=1 $(PYTHON_IN_VENV) -m pytest $(ARGS); fi

lint: setup ## ruff, mypy --strict and the layers between modules
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: setup ## measure against named peers: make bench BENCH=near_duplicates ARGS='--n 1000000'
	$(PYTHON_IN_VENV) benchmarks/$(BENCH).py $(ARGS)

clean: ## remove caches and build leftovers; .venv, data sets and reports stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find curate tests benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} +
