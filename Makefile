# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# "make help" lists the targets. Each prepares what it needs (tests/setup), about 2 minutes the first time.

.DEFAULT_GOAL := help
.PHONY: help setup setup-test setup-lint setup-all test demo static lint format sanity unit unit39 contract integration \
	lab lab-image lab-all lab-shell bench soak importer docs build clean
MAKEFLAGS += --no-print-directory

# options for pytest: make integration ARGS="-k rbd -x"; names and options for the lab: make lab ARGS="zfs thin"
ARGS =

PYTHON = .venv/bin/python

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

test: setup-all ## Run all tests: static, unit, contract, integration, lab (up to 60 min; LAB=no leaves the lab out)
	@$(PYTHON) tests/summary.py

demo: setup-test ## Show the collection at work on this machine
	@demo/run

lint: setup-lint ## Run the static checks that take seconds
	@$(PYTHON) tests/static/run.py --quick

format: setup-lint ## Rewrite the Python files in the form that lint asks for
	@.venv-lint/bin/ruff check --fix --quiet . || true
	@.venv-lint/bin/ruff format --quiet .

static: setup-all ## Run all static checks: linters, sanity tests, documentation, package (up to 5 min)
	@$(PYTHON) tests/static/run.py

sanity: setup-all ## Run ansible-test sanity on the newest and the oldest ansible-core
	@$(PYTHON) tests/static/run.py sanity-newest sanity-oldest

unit: setup-lint ## Run the unit tests, those of module_utils on Python 3.9 too
	@tests/run-pytest unit "$(ARGS)" tests/unit
	@tests/sanity/run unit39

unit39: setup-lint ## Run the unit tests of module_utils on Python 3.9
	@tests/sanity/run unit39

contract: setup-test ## Run the contract that every module keeps
	@tests/run-pytest contract "$(ARGS)" tests/contract

integration: setup-test ## Run the tests on a private libvirtd and real storage servers (up to 15 min)
	@tests/run-pytest integration "$(ARGS)" tests/integration

lab-image: setup-test ## Build the guests of the lab and freeze them (up to 15 min; seconds when they are there)
	@tests/run-lab image

lab: setup-test ## Run the lab's scenarios on fresh hosts (up to 25 min)
	@tests/run-lab run $(ARGS)

lab-all: setup-test ## Run the scenarios with their long tests, and write down the results
	@tests/run-lab run --long --report docs/guide/lab-results.md $(ARGS)

lab-shell: setup-test ## A shell on a hypervisor of the lab, with a second one and a storage server beside it
	@tests/run-lab shell $(ARGS)

bench: setup-test ## Measure the collection beside what a user would pick instead
	@tests/bench/run

soak: importer ## Run the long form of inputs, layouts and faults, and what takes too long for every change
	@KVM_STORAGE_SOAK=1 tests/run-pytest soak "$(ARGS)" tests/integration/inputs tests/integration/layouts tests/integration/faults

importer: setup-lint ## Run galaxy-importer on the built collection
	@tests/setup importer
	@tests/static/importer

docs: setup-lint ## Build the documentation site in docs/site
	@docs/docsite/build

build: setup-test ## Build the collection's tarball in .cache/build
	@mkdir -p .cache/build
	@.venv/bin/ansible-galaxy collection build --force --output-path .cache/build

setup: setup-all ## Prepare packages and virtual environments, nothing else

setup-test:
	@tests/setup apt tree test

setup-lint:
	@tests/setup apt tree test lint

setup-all:
	@tests/setup apt tree test lint oldest sanity

clean: ## Remove everything that was made here, virtual environments too
	rm -rf .ansible .cache .venv .venv-lint .venv-oldest .venv-importer docs/site
	find . -name __pycache__ -prune -exec rm -rf {} +
