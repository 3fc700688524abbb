# The front door. `make help` lists what it opens.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

OUT := out
HOST_PROGRAMS := petrel petrel-shim
# There is one of these for each unikernel: linked statically, it starts in less time and takes less memory.
STATIC_TARGET := x86_64-unknown-linux-gnu
STATIC_PROGRAM := petrel-tender
STATIC := target/static/$(STATIC_TARGET)/release
# What an appliance has of ours. All of it static, as there is nothing else on it.
APPLIANCE_PROGRAMS := petrel-init petrel-shim petrel-tender petrel-witness
GUESTS := petrel hello web crash disk
GUEST_TARGET := x86_64-solo5-hvt
FUZZ_SECONDS := 60
# Options of petrel-appliance; see docs/appliance.md.
APPLIANCE :=

# Recipes call cargo through these, so that the toolchain is chosen in one place.
HOST_CARGO := tools/toolchain host
GUEST_CARGO := tools/toolchain guest
GUEST_FLAGS := --target target-specs/$(GUEST_TARGET).json -Zbuild-std=core,alloc \
	-Zbuild-std-features=compiler-builtins-mem -Zjson-target-spec

# Of the simulation: how many worlds, of how many steps each.
SEEDS := 1000
STEPS := 10000
# What does not happen to the worlds; all does if it is empty.
WITHOUT ?=

.PHONY: help setup setup-appliance build host guests appliance qemu qemu-made qemu-parts run test sim man check fuzz bench \
	bench-appliance bench-tender clean

help: ## list what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what building and testing need (idempotent; root or sudo for what is missing)
	@tools/setup

build: host guests ## build everything into out/

host:
	$(HOST_CARGO) build --release --locked $(HOST_PROGRAMS:%=-p %)
	@mkdir -p $(OUT)
	@install -C $(HOST_PROGRAMS:%=target/release/%) $(OUT)
	RUSTFLAGS='-C target-feature=+crt-static' $(HOST_CARGO) build --release --locked -p $(STATIC_PROGRAM) \
		--target $(STATIC_TARGET) --target-dir target/static
	@install -C $(STATIC)/$(STATIC_PROGRAM) $(OUT)

guests:
	$(GUEST_CARGO) build --release --locked -p petrel-unikernel -p hello -p web -p crash -p disk $(GUEST_FLAGS) --target-dir target/guests
	@mkdir -p $(OUT)
	@for guest in $(GUESTS); do \
		install -C -m 644 target/guests/$(GUEST_TARGET)/release/$$guest $(OUT)/$$guest.hvt; done

appliance: setup-appliance host guests ## make the sealed appliance in out/appliance; see docs/appliance.md
	RUSTFLAGS='-C target-feature=+crt-static' $(HOST_CARGO) build --release --locked $(APPLIANCE_PROGRAMS:%=-p %) \
		--features petrel-shim/appliance \
		--target $(STATIC_TARGET) --target-dir target/static
	$(HOST_CARGO) run --release --locked --quiet -p petrel-appliance -- --programs $(STATIC) \
		--control-plane $(OUT)/petrel.hvt --cache target/appliance --out $(OUT)/appliance $(APPLIANCE)
	@install -C $(STATIC)/petrel-witness $(OUT)/appliance # for tests; it is in no image

# A system whose control plane ends at once, upstream's tender and guests, and the tests that know what these do.
qemu-parts:
	$(HOST_CARGO) run --release --locked --quiet -p petrel-appliance -- --programs $(STATIC) \
		--control-plane $(OUT)/hello.hvt --cache target/appliance --out $(OUT)/appliance/broken
	$(HOST_CARGO) test --release --locked --quiet -p petrel-tender --test conformance -- \
		--exact guests::a_guest_is_no_program_of_this_host
	@install -C "$$($(HOST_CARGO) test --release --locked --quiet -p petrel-tender --test conformance --no-run \
		--message-format json | sed -n 's|.*"executable":"\([^"]*/conformance-[^"]*\)".*|\1|p')" $(OUT)/appliance/conformance

qemu: appliance qemu-parts ## boot the appliance in QEMU, on emulated AMD-V, and drive it from outside
	$(HOST_CARGO) test --release --locked -p petrel-qemu-tests --test appliance -- --test-threads 2 $(TESTS)

setup-appliance:
	@tools/setup appliance

# The tests of how an appliance is made leave nothing out here.
qemu: qemu-made
qemu-made: appliance
	PETREL_APPLIANCE=1 $(HOST_CARGO) test --release --locked -p petrel-appliance

run: setup build ## bring a whole host up, run two unikernels on it, fetch a page
	@tools/demo

test: setup build ## run all tests: units, conformance, a whole host from outside
	PETREL_TENDER=$(CURDIR)/$(OUT)/$(STATIC_PROGRAM) \
	$(HOST_CARGO) test --release --locked --workspace --exclude hello --exclude web --exclude crash --exclude disk \
		--exclude petrel-fuzzed
	$(HOST_CARGO) test --profile sim --locked -p petrel-fuzzed
	@$(MAKE) sim
	$(HOST_CARGO) test --profile sim --locked -p petrel-sim --features planted --test planted

sim: setup ## simulate: SEEDS=n STEPS=n [FIRST=n], or one world: SEED=n [WITHOUT=event,...]; see docs/simulator.md
	$(HOST_CARGO) run --profile sim --locked -p petrel-sim -- --seeds $(SEEDS) --steps $(STEPS) \
		$(if $(FIRST),--first $(FIRST)) $(if $(SEED),--seed $(SEED)) $(if $(WITHOUT),--without $(WITHOUT)) \
		$(if $(TRACE),--trace $(TRACE))

man: host ## write the manual pages into out/man
	@rm -rf $(OUT)/man
	$(OUT)/petrel man $(OUT)/man

check: setup ## formatting, lints, licences and duplicate dependencies, what the service may do
	$(HOST_CARGO) fmt --all --check
	$(HOST_CARGO) clippy --locked --all-targets -- -D warnings
	$(HOST_CARGO) clippy --locked -p petrel-qemu-tests --test appliance -- -D warnings
	tools/check-deny
	@! command -v systemd-analyze >/dev/null || systemd-analyze security --offline=true --threshold=35 --no-pager \
		host-shim/systemd/petrel-shim.service | tail -1

fuzz: guests ## feed all parsers with anything, each for FUZZ_SECONDS=60; TARGETS="frame journal" for some of them
	@FUZZ_SECONDS=$(FUZZ_SECONDS) tools/fuzz $(TARGETS)

bench: setup build ## measure what the README claims, with the floor beside it
	@tools/bench
	@$(MAKE) bench-appliance

bench-appliance: appliance ## measure the appliance in QEMU: from power on to a session, memory at rest
	$(HOST_CARGO) run --release --locked --quiet -p petrel-qemu-tests --bin measure

bench-tender: setup build ## measure guests on the tender against Solo5's own (needs root) [ONLY="blocks tcp"]
	@ONLY="$(ONLY)" tools/bench-tender

clean: ## remove everything that was built
	rm -rf target $(OUT)
