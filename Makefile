PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# How long one thread waits for the other before it releases its core. The default is so long that training beside one
# busy program (a browser, say) takes ten times as long; with this value it takes three times, and alone it is as fast.
export GOMP_SPINCOUNT ?= 10000

.DEFAULT_GOAL := help
.PHONY: help demo test lint lab train quality docs play tables goals tables-quick render recipe notebooks bench uncertainty faults bench-panels fashion

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# One stamp for each set of extras: the install is skipped while pyproject.toml is unchanged.
$(VENV)/installed-%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[$*]'
	touch $@

$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e .
	touch $@

demo: $(VENV)/installed  ## write pictures and metrics with the shipped weights, into output/demo
	$(BIN)/python train_ddim_mnist.py --pretrained --output-dir output/demo --quality-digits 200

# One process per processor, at most four, with one thread each: when two programs of two threads share two processors,
# each waits for the other's threads, and both take longer than one after the other.
test: export OMP_NUM_THREADS = 1
test: PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal
test: $(VENV)/installed-test  ## run all tests
	@echo "1 of 3: the package"
	$(PYTEST) tests --ignore tests/test_notebooks.py --ignore tests/test_browser.py
	@echo "2 of 3: the notebooks, as they are and with their exercises solved"
	$(PYTEST) notebooks tests/test_notebooks.py
	@echo "3 of 3: the panels in a browser"
	$(BIN)/python -m pytest tests/test_browser.py

lint: $(VENV)/installed-lint  ## check style and types, with ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lab: $(VENV)/installed-lab,uncertainty  ## open JupyterLab on the notebooks
	$(BIN)/jupyter lab --ip=127.0.0.1 --LabApp.default_url=/lab/tree/notebooks

train: $(VENV)/installed  ## train everything from scratch, into output/trained (about an hour and a half; goes on after a kill)
	$(BIN)/python train_ddim_mnist.py --resume --output-dir output/trained

quality: $(VENV)/installed  ## measure the shipped weights on all 10,000 test digits
	$(BIN)/python train_ddim_mnist.py --pretrained --output-dir output/quality --quality-digits 10000

docs: $(VENV)/installed-docs,onnx  ## build the site from notebooks, documents and docstrings, into output/site
	$(BIN)/sphinx-build -W --keep-going -q -c docs -d output/site-cache . output/site

play: $(VENV)/installed-onnx  ## run the models in the browser: build and serve only that page of the site (needs npm)
	$(BIN)/python docs/play/build.py output/site --serve

tables: $(VENV)/installed-lab  ## measure everything for docs/results.md (an hour; goes on after a kill)
	$(BIN)/python benchmarks/tables.py
	$(MAKE) render

goals: $(VENV)/installed-lab  ## measure what changed latents decode to, table K of docs/results.md (half an hour)
	$(BIN)/python benchmarks/tables.py --only K
	$(MAKE) render

tables-quick: $(VENV)/installed-lab  ## the same on few digits and small grids, in a few minutes; writes nothing
	$(BIN)/python benchmarks/tables.py --quick

render: $(VENV)/installed-lab  ## fill the tables of the documents from docs/results/*.json
	$(BIN)/python benchmarks/render.py

recipe: $(VENV)/installed-lab  ## how the recipe was chosen, for docs/recipe.md (an hour; goes on after a kill)
	$(BIN)/python benchmarks/recipe.py
	$(BIN)/python benchmarks/recipe.py --decoding
	$(MAKE) render

notebooks: $(VENV)/installed-lab,uncertainty  ## run all notebooks again, in place
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.store_widget_state=False \
		--ExecutePreprocessor.record_timing=False notebooks/*.ipynb

bench: $(VENV)/installed-test,bench  ## speed compared with the alternatives, for docs/performance.md (three hours)
	$(BIN)/python benchmarks/time_to_quality.py
	$(BIN)/python benchmarks/speed.py all
	$(BIN)/python benchmarks/time_to_quality.py --times
	$(BIN)/python benchmarks/page.py
	$(MAKE) render

uncertainty: $(VENV)/installed-lab,uncertainty  ## heads on the latents, and CLUE, for docs/uncertainty.md (ten minutes)
	$(BIN)/python benchmarks/uncertainty.py
	$(MAKE) render

faults: $(VENV)/installed-test  ## try to break the package: the long experiments of docs/reliability.md (half an hour)
	WRITE_FAULTS=1 $(BIN)/python -m pytest tests/robustness -m "long or not long" -rP
	$(MAKE) render

bench-panels: $(VENV)/installed-lab  ## how fast the notebooks' panels answer
	$(BIN)/python benchmarks/panels.py

fashion: $(VENV)/installed-lab  ## a paper's table on Fashion-MNIST, for docs/own_data.md (hours; needs Debian's dataset-fashion-mnist)
	$(BIN)/python benchmarks/fashion.py
	$(MAKE) render
