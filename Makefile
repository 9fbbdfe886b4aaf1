# Every target sets up what it needs in .venv; only Python 3.11 or later and make have to be there.

PYTHON ?= python3
PMC ?=
DATA ?= $(or $(CMBERT_DATA),../shared/data)
ONLY ?=
SUITE ?= eval/suites/abstracts.yaml

VENV := .venv
BIN := $(VENV)/bin
DONE := $(VENV)/.done
RUN := $(BIN)/python -m
INSTALL := $(RUN) pip --disable-pip-version-check -qq install --constraint constraints.txt

# Fast tests share few fixtures, so files go to processes of their own. Slow tests measure time: one at a time.
TEST_FLAGS ?= -q -n auto --maxprocesses 8 --dist loadfile
EXTRAS_FLAGS ?= -q

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-extras lint eval bench bench-pyserini gpu-check wheel wheelhouse clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(DONE)/base ## build the ICD-10-CM index and ask it five questions; PMC=path indexes and asks articles too
	@$(RUN) cmbert_retrieval demo $(if $(PMC),--pmc '$(PMC)')

test: export HF_HUB_OFFLINE := 1
test: lint ## lint, types, layers and the fast tests (two minutes on two idle cores); needs neither torch nor data
	@$(RUN) pytest $(TEST_FLAGS) -m "not slow and not gpu"

test-extras: export HF_HUB_OFFLINE := 1
test-extras: $(DONE)/dev $(DONE)/minilm $(DONE)/data $(DONE)/eval $(DONE)/pretrain ## the slow tests: real models, real data, faults, GPUs where there are some
	@$(RUN) pytest $(EXTRAS_FLAGS) -m "slow or gpu" || \
	{ code=$$?; test $$code -eq 5 && echo "there are no slow tests"; }

lint: $(DONE)/dev ## ruff, mypy --strict, import-linter
	@$(RUN) ruff check --quiet --output-format concise .
	@$(RUN) ruff format --check .
	@$(RUN) mypy
	@$(BIN)/lint-imports --no-logo

eval: export HF_HUB_OFFLINE := 1
eval: $(DONE)/minilm $(DONE)/eval ## measure a suite and compare with what is expected: SUITE=eval/suites/codes.yaml, DATA=folder
	@$(BIN)/python eval/run.py '$(SUITE)' --check $(if $(filter command,$(origin DATA)),--data '$(DATA)')

bench: export HF_HUB_OFFLINE := 1
bench: $(DONE)/bench ## speed and memory beside other libraries; ONLY=search,parsing for some; DATA=folder of real data
	@$(BIN)/python benchmarks/run.py --data '$(DATA)' $(if $(ONLY),--only '$(ONLY)')

bench-pyserini: $(DONE)/venv ## install Pyserini (7 GB) beside, so that make bench compares with it, too
	@test -x .venv-pyserini/bin/python || '$(PYTHON)' -m venv .venv-pyserini
	@.venv-pyserini/bin/python -m pip --disable-pip-version-check -qq install -r benchmarks/requirements-pyserini.txt

gpu-check: $(DONE)/pretrain ## one GPU, ten minutes: attention, speed, FAISS, resume; writes benchmarks/gpu/DEVICE.json
	@$(BIN)/python benchmarks/gpu_check.py

wheel: $(DONE)/venv ## build the wheel into dist/
	@rm -rf build dist
	@$(RUN) pip --disable-pip-version-check -qq wheel --no-deps --wheel-dir dist .
	@rm -rf build
	@ls dist/*.whl

wheelhouse: $(DONE)/venv ## the wheel and all that it needs, into dist/wheelhouse/: for machines without a network
	@echo "building the wheel and fetching what it needs (a minute)"
	@rm -rf build dist/wheelhouse
	@$(RUN) pip --disable-pip-version-check -qq wheel --constraint constraints.txt --wheel-dir dist/wheelhouse .
	@rm -rf build
	@du -sh dist/wheelhouse
	@echo 'there: pip install --no-index --find-links dist/wheelhouse cmbert-retrieval'

clean: ## remove builds and caches (not .venv: rm -r .venv)
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find cmbert_retrieval tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A .venv that works is taken as it is; one whose making was interrupted is made again.
$(DONE)/venv:
	@command -v '$(PYTHON)' >/dev/null || { echo "make: there is no '$(PYTHON)'; expected Python 3.11 or later:" \
	"install it, or say where it is: make PYTHON=/path/to/python3" >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: '$(PYTHON)' is" \
	"$$('$(PYTHON)' --version 2>&1), expected 3.11 or later; name another one: make PYTHON=python3.12" >&2; exit 1; }
	@'$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null || { echo "make: '$(PYTHON)' has no venv and ensurepip;" \
	"install them (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@$(RUN) pip --version >/dev/null 2>&1 || { echo "making $(VENV)"; '$(PYTHON)' -m venv --clear $(VENV); }
	@mkdir -p $(DONE) && touch $@

$(DONE)/base: pyproject.toml constraints.txt | $(DONE)/venv
	@echo "installing the library into $(VENV) (half a minute to some minutes)"
	@$(INSTALL) --editable .
	@touch $@

$(DONE)/dev: pyproject.toml constraints.txt | $(DONE)/venv
	@echo "installing the library and its test tools (half a minute to some minutes)"
	@$(INSTALL) --editable '.[dev]'
	@touch $@

$(DONE)/data: pyproject.toml constraints.txt | $(DONE)/venv
	@echo "installing pyarrow and datasets (half a minute)"
	@$(INSTALL) --editable '.[data]'
	@touch $@

$(DONE)/eval: pyproject.toml constraints.txt | $(DONE)/venv
	@echo "installing bm25s, which the evaluation compares with (seconds)"
	@$(INSTALL) --editable '.[eval]'
	@touch $@

$(DONE)/pretrain: pyproject.toml constraints.txt | $(DONE)/venv
	@echo "installing what pretraining needs (some minutes the first time)"
	@$(INSTALL) --editable '.[pretrain]'
	@touch $@

$(DONE)/minilm: pyproject.toml constraints.txt | $(DONE)/venv
	@echo "installing the library, torch and a small encoder into $(VENV); pip is silent meanwhile (some minutes the first time)"
	@$(INSTALL) --editable '.[minilm]'
	@touch $@

$(DONE)/bench: benchmarks/requirements.txt constraints.txt | $(DONE)/minilm $(DONE)/pretrain
	@echo "installing the libraries that are compared with"
	@$(INSTALL) -r benchmarks/requirements.txt
	@touch $@
