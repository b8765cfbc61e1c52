# Everything that these targets create lives under .mstkd/, which git ignores.
HOME_DIR := $(CURDIR)/.mstkd
PYTHON ?= python3
VENV := $(HOME_DIR)/venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport MSTKD_TRITON_HOME
INSTALLED := $(VENV)/.installed
SERVER := $(VENV)/tritonserver/mstkd-triton.json
BENCH := $(HOME_DIR)/bench

.PHONY: help setup demo test test-all lint types format bench bench-ensemble bench-train docs model-repo image clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: $(INSTALLED) $(SERVER) ## Make the environments: everything installed, nothing started

$(INSTALLED): pyproject.toml training/pyproject.toml clients/python/pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.11 to 3.13 is needed; $(PYTHON) is $$($(PYTHON) --version). Say: make PYTHON=python3.11 ..."; exit 2; }
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing the three distributions and the tools (about 2 GB, a minute or more) ..."
	@$(BIN)/pip install --quiet --constraint constraints.txt \
	  --editable 'clients/python[align,bulk,insightface,local,ray,telemetry]' --editable '.[cpu,openvino,report,dev]' --editable 'training[tensorboard]'
	@touch $@

$(SERVER): $(INSTALLED)
	@$(BIN)/mstkd-serve triton install
	@touch $@

demo: setup ## The main job: train, distil, export, serve on a real Triton, verify over gRPC
	@$(BIN)/python examples/demo.py --out $(HOME_DIR)/demo

test: setup ## The tests, minutes (a real tritonserver, real gRPC, real ONNX files)
	@$(BIN)/pytest -m "not slow"

test-all: setup ## The tests and the slow ones
	@$(BIN)/pytest

lint: $(INSTALLED) ## Style, formatting and import rules
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports

types: $(INSTALLED) ## Strict static types
	@$(BIN)/mypy

format: $(INSTALLED) ## Put the sources into the project's format
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

bench: setup ## Measure engines, the served path, the ensemble and the client, interleaved
	@$(BIN)/python examples/bench_models.py $(BENCH)
	@$(BIN)/mstkd-serve bench --student $(BENCH)/student.onnx --contract arcface \
	  $(foreach group,asian african caucasian indian,--teacher $(BENCH)/teacher_$(group).onnx) \
	  --adaptor $(BENCH)/adaptor.onnx --no-bounded-queue --out $(BENCH)

bench-ensemble: setup ## Compare the ensemble mode as one graph and as steps (after make demo)
	@$(BIN)/python examples/bench_ensemble.py $(HOME_DIR)/demo

bench-train: setup ## Compare training, target reading and extraction with the public code's way (minutes)
	@$(BIN)/python examples/bench_train.py

docs: $(INSTALLED) ## Write the command-line reference, and the API reference from docstrings
	@$(BIN)/typer mstkd_serve.cli utils docs --name mstkd-serve --output docs/commands/mstkd-serve.md
	@$(BIN)/typer mstkd_training.cli utils docs --name mstkd-train --output docs/commands/mstkd-train.md
	@$(BIN)/pdoc --docformat google --output-directory $(HOME_DIR)/api \
	  mstkd_client mstkd_client.align mstkd_client.bulk
	@echo "The client's API reference: $(HOME_DIR)/api/mstkd_client.html"

model-repo: $(INSTALLED) ## Rewrite the committed configs of model_repo/
	@MSTKD_WRITE_MODEL_REPO=1 $(BIN)/pytest -q tests/contract/test_model_repo.py

image: ## Build the container image (needs a Docker engine)
	@command -v docker >/dev/null || { echo "make image needs Docker"; exit 2; }
	docker build --tag mstkd-serve .

clean: ## Remove everything that make created
	rm -rf $(HOME_DIR)
