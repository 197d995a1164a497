# Every target brings a fresh Debian 12 or 13 to where it can run: see tests/setup.sh.

# The Python that .venv is made of; 3.11 or newer.
PYTHON = /usr/bin/python3
export PYTHON
# What `make test`, `make soak` and `make bench` hand on, as in: make test ARGS="-k balloon"
ARGS =
RELEASES = bookworm trixie
MAKEFLAGS += --no-print-directory

bin = .venv/bin
scripts = launchers/kvm tests/setup.sh tests/lock.sh tests/chroot.sh tests/boot.sh tests/boot/packages tests/boot/program tests/boot/run .ci/run launchers/guest/init launchers/guest/agent launchers/guest/eat

checks = check-pyright check-types check-lint check-format check-imports check-shell
# Tests that share what a host has once, or a guest, go to one worker; see tests/conftest.py.
parallel = --numprocesses auto --dist loadgroup --no-loadscope-reorder
# The driver of Chromium in tests brings a Node.js that needs one library more.
chromium = chromium=chromium /usr/lib/$(shell uname -m)-linux-gnu/libatomic.so.1=libatomic1

.PHONY: help setup fmt check test test-unit soak mutants man demo bench pictures chroot boot lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s  %s\n", $$1, $$2 }' Makefile

setup: ## Install what is missing, make .venv
	@tests/setup.sh

fmt: ## Format the code, fix what can be fixed by machine
	@tests/setup.sh
	$(bin)/ruff format .
	$(bin)/ruff check --fix .

check: ## Format, lint, types, imports, shell scripts
	@tests/setup.sh shellcheck=shellcheck
	@$(MAKE) --keep-going --jobs --output-sync=target $(checks)

# Each part of `make check` by itself, as in: make check-types
.PHONY: $(checks)
check-format: ; $(bin)/ruff format --check .
check-lint: ; $(bin)/ruff check .
check-types: ; $(bin)/mypy
check-pyright: ; $(bin)/pyright
check-imports: ; $(bin)/lint-imports
check-shell: ; shellcheck $(scripts)

test: ## The whole suite, with real QEMU
	@tests/setup.sh hyperfine=hyperfine curl=curl rsvg-convert=librsvg2-bin go-md2man=go-md2man man=man-db mandoc=mandoc /usr/share/i18n/charmaps=locales $(chromium) promtool:promtool,prometheus
	$(bin)/python launchers/tinyguest build
	$(bin)/pytest -q $(parallel) $(ARGS)

test-unit: ## The tests without processes, network and real time: half a minute
	@tests/setup.sh
	$(bin)/pytest -q $(parallel) --numprocesses $$(nproc) tests/unit $(ARGS)

soak: ## Half an hour of all that can go wrong, and hours of it by chance (SOAK_SECONDS=600)
	@tests/setup.sh
	$(bin)/python launchers/tinyguest build
	QMPMEM_TEST_ALL=1 $(bin)/pytest -q -m 'soak or unit' $(ARGS)

mutants: ## Changes of the policy that no fast test notices (ARGS="reach goals")
	@tests/setup.sh
	$(bin)/python -m tests.mutants $(ARGS)

# By go-md2man, as podman's and containerd's: Debian has it, 2 MB. pandoc would do, and takes 170.
man: ## Manual pages of all chapters, in build/man
	@tests/setup.sh go-md2man=go-md2man
	$(bin)/python -m tests.rig.pages build/man

demo: ## See guests give memory and get it back, share it, and an agent at work
	@tests/setup.sh
	@$(bin)/python tests/demo.py $(ARGS)

bench: ## Measure, beside other ways of doing the same
	@tests/setup.sh hyperfine=hyperfine $(chromium)
	$(bin)/python tests/bench $(ARGS)

pictures: ## Draw README's pictures anew
	@tests/setup.sh $(chromium)
	$(bin)/python -m tests.rig.pictures

chroot: ## `make demo` and `make test` in bare Debians (RELEASES="bookworm trixie"); as root
	@tests/chroot.sh $(RELEASES)

boot: ## The units under the systemd of a Debian that QEMU boots (RELEASES="bookworm trixie"); as root
	@tests/setup.sh debootstrap=debootstrap mke2fs=e2fsprogs
	@tests/boot.sh $(RELEASES)

lock: ## Write tests/constraints.txt anew, with the newest versions that pyproject.toml allows
	@tests/lock.sh

clean: ## Remove everything that was made here
	rm -rf .venv build dist .hypothesis .benchmarks .*_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
