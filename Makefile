# Every target brings a fresh Debian 12 to where it can run: see tests/setup.sh.

# The Python that .venv is made of; 3.11 or newer.
PYTHON = /usr/bin/python3
export PYTHON
# What `make test`, `make soak` and `make bench` hand on, as in: make test ARGS="-k balloon"
ARGS =
RELEASES = bookworm trixie
MAKEFLAGS += --no-print-directory

bin = .venv/bin
scripts = launchers/kvm tests/setup.sh tests/lock.sh tests/chroot.sh .ci/run launchers/guest/init launchers/guest/agent launchers/guest/eat

.PHONY: help setup fmt check test soak demo bench chroot lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s  %s\n", $$1, $$2 }' Makefile

setup: ## Install what is missing, make .venv
	@tests/setup.sh

fmt: ## Format the code, fix what can be fixed by machine
	@tests/setup.sh
	$(bin)/ruff format .
	$(bin)/ruff check --fix .

check: ## Format, lint, types, imports, shell scripts
	@tests/setup.sh shellcheck=shellcheck
	$(bin)/ruff format --check .
	$(bin)/ruff check .
	$(bin)/mypy
	$(bin)/pyright
	$(bin)/lint-imports
	shellcheck $(scripts)

test: ## The whole suite, with real QEMU
	@tests/setup.sh hyperfine=hyperfine curl=curl
	$(bin)/python launchers/tinyguest build
	$(bin)/pytest -q $(ARGS)

soak: ## Ten minutes and more of everything that can go wrong (SOAK_SECONDS=600)
	@tests/setup.sh
	$(bin)/python launchers/tinyguest build
	$(bin)/pytest -q -m soak $(ARGS)

demo: ## See guests give memory and get it back, share it, and an agent at work
	@tests/setup.sh
	@$(bin)/python tests/demo.py $(ARGS)

bench: ## Measure, beside other ways of doing the same
	@tests/setup.sh hyperfine=hyperfine
	$(bin)/python tests/bench $(ARGS)

chroot: ## `make demo` and `make test` in bare Debians (RELEASES="bookworm trixie"); as root
	@tests/chroot.sh $(RELEASES)

lock: ## Write tests/constraints.txt anew, with the newest versions that pyproject.toml allows
	@tests/lock.sh

clean: ## Remove everything that was made here
	rm -rf .venv build dist .hypothesis .benchmarks .*_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
