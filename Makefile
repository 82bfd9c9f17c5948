# The commands of this project; CI runs the same. `make demo` and `make test` set up what they need.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

export MLFLOW_DISABLE_TELEMETRY = true
export ORT_DISABLE_TELEMETRY = 1
export DVC_NO_ANALYTICS = 1

.PHONY: help setup demo test test-slow test-training test-engine bench check format docs clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 16

setup: $(READY)  ## install everything into .venv

# openai-whisper is installed without its dependencies: on a CPU machine it would bring triton, a
# gigabyte that only CUDA uses. What it imports is the 'whisper' extra. Of silero-vad only the network
# is used, which onnxruntime runs; as a package it asks for torch.
$(READY): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: set PYTHON=/path/to/python3.11"; exit 5; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[all,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'openai-whisper>=20250625' 'silero-vad==6.2.3'
	@touch $@

demo: $(READY)  ## recordings to voice on this machine, about ten minutes
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/kamerton demo

test: $(READY)  ## the test suite
	$(BIN)/python -m pytest

test-slow: $(READY)  ## proofs that take minutes: kill and resume, whole pipelines
	$(BIN)/python -m pytest -m slow

test-training: $(READY)  ## proofs that training loses no work: kills, full disks, dead servers
	$(BIN)/python -m pytest -m training

test-engine: $(READY)  ## image builds; skips where no container engine answers
	$(BIN)/python -m pytest -m engine

bench: $(READY)  ## figures against their baselines, forty minutes; see benchmarks/README.md
	@for name in segmentation transcription scale malformed fuzzing versioning train_step batching inference early_stopping search log_watcher alerts; do \
	    echo "== $$name"; $(BIN)/python -m benchmarks.$$name || failed="$$failed $$name"; \
	done; test -z "$$failed" || { echo "missed:$$failed"; exit 1; }

check: $(READY)  ## format, lint, types, layers, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/kamerton params check
	@$(BIN)/kamerton params docs | diff -u docs/reference/params.md - || { echo "run make docs"; exit 1; }

format: $(READY)  ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)  ## regenerate docs/reference and manifests/katib
	$(BIN)/kamerton params docs -o docs/reference/params.md
	$(BIN)/kamerton pipeline katib

clean:  ## remove what runs of the project made, not the environment and not the recordings
	rm -rf data/clips data/transcripts.jsonl data/dataset data/analysis.json reports runs tuning models evaluation
	rm -rf .kamerton promotion.json mlflow.db* .mlflow.db* mlartifacts pipeline-runs voice.wav dvc.lock .dvc/cache .dvc/tmp
