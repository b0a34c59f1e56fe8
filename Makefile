PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# How long one thread waits for the other before it lets go of its core. By default so long that training beside one
# busy program (a browser, say) takes ten times as long; with this it takes three times, and alone it is as fast.
export GOMP_SPINCOUNT ?= 10000

.DEFAULT_GOAL := help
.PHONY: help demo test lint lab train quality tables tables-quick notebooks bench uncertainty faults bench-panels

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# One stamp for each set of extras: the install is skipped while pyproject.toml is unchanged.
$(VENV)/installed-%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[$*]'
	touch $@

demo: $(VENV)/installed-lab  ## draw the pictures with the shipped weights, into output/demo
	$(BIN)/python train_ddim_mnist.py --pretrained --output-dir output/demo

test: $(VENV)/installed-test  ## run all tests
	$(BIN)/python -m pytest

lint: $(VENV)/installed-lint  ## check style with ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lab: $(VENV)/installed-lab,uncertainty  ## open JupyterLab on the notebooks
	$(BIN)/jupyter lab --ip=127.0.0.1 --notebook-dir=notebooks

train: $(VENV)/installed-lab  ## train everything from nothing, into output/trained
	$(BIN)/python train_ddim_mnist.py --output-dir output/trained

quality: $(VENV)/installed-lab  ## measure the shipped weights on all 10,000 test digits
	$(BIN)/python train_ddim_mnist.py --pretrained --output-dir output/quality --quality-digits 10000 --quality-steps 10 100

tables: $(VENV)/installed-lab  ## measure everything for RESULTS.md (two hours; goes on after a kill)
	$(BIN)/python benchmarks/tables.py

tables-quick: $(VENV)/installed-lab  ## the same on 1,000 digits and smaller grids, in a few minutes
	$(BIN)/python benchmarks/tables.py --quick

notebooks: $(VENV)/installed-lab,uncertainty  ## run all notebooks again, in place
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.store_widget_state=False \
		--ExecutePreprocessor.record_timing=False notebooks/*.ipynb

bench: $(VENV)/installed-lab,bench  ## speed beside what one would use instead, for benchmarks/RESULTS.md (an hour)
	$(BIN)/python benchmarks/time_to_quality.py
	for what in throughput limit growth first-picture; do $(BIN)/python benchmarks/speed.py $$what || exit 1; done

uncertainty: $(VENV)/installed-lab,uncertainty  ## heads on the latents, and CLUE, for benchmarks/UNCERTAINTY.md
	$(BIN)/python benchmarks/uncertainty.py

faults: $(VENV)/installed-lab,uncertainty  ## try to break it, for benchmarks/RELIABILITY.md (an hour)
	$(BIN)/python benchmarks/faults.py

bench-panels: $(VENV)/installed-lab  ## how fast the notebooks' panels answer
	$(BIN)/python benchmarks/panels.py
