# Weir. `make demo` shows it, `make test` proves it; `make help` lists the rest.

# cargo where rustup puts it, and the programs of the system that tests start.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin:/sbin

CARGO ?= cargo
# In CI the lock file is law.
LOCKED := $(if $(CI),--locked)
# Crates whose tests change network namespaces, mounts or firewall rules of namespaces: they need root.
KERNEL_CRATES := e2e netsys
FUZZ_SECONDS ?= 60
# The release of cargo-deny that CI uses.
CARGO_DENY := 0.20.2

.PHONY: help demo test test-pure check fmt lint doc deny build bench fuzz

help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Shows one request on its way through the mesh, on this machine
	@scripts/deps.sh demo
	$(CARGO) build $(LOCKED) --release --package weir
	@target/release/weir demo

build: ## Builds target/release/weir
	@scripts/deps.sh build
	$(CARGO) build $(LOCKED) --release --package weir

test: ## Runs every test; those of the kernel need root
	@scripts/deps.sh test
ifeq ($(shell id -u),0)
	$(CARGO) test $(LOCKED) --workspace
else
	$(MAKE) test-pure
	@echo 'The tests against the kernel (crates $(KERNEL_CRATES)) were NOT run: they need root, for namespaces and' >&2
	@echo 'firewall rules of their own. Nothing outside those namespaces is changed. To run everything:' >&2
	@echo '    sudo env "PATH=$$PATH" "CARGO_HOME=$${CARGO_HOME:-$$HOME/.cargo}" "RUSTUP_HOME=$${RUSTUP_HOME:-$$HOME/.rustup}" make test' >&2
	@exit 1
endif

test-pure: ## Runs the tests that need no root
	$(CARGO) test $(LOCKED) --workspace $(addprefix --exclude ,$(KERNEL_CRATES))

check: fmt lint doc deny ## Formatting, lints, documentation, dependency policy

fmt:
	@scripts/deps.sh build
	$(CARGO) fmt --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check

lint:
	$(CARGO) clippy $(LOCKED) --workspace --all-targets -- -D warnings
	$(CARGO) clippy --manifest-path fuzz/Cargo.toml --target-dir target/fuzz --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc $(LOCKED) --workspace --no-deps --document-private-items

deny:
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install cargo-deny --locked --version $(CARGO_DENY)
	$(CARGO) deny check --hide-inclusion-graph -A unused-wrapper bans licenses sources
	@if $(CARGO) deny fetch db >/dev/null 2>&1; \
	then $(CARGO) deny check advisories; \
	else echo 'The advisory database cannot be reached from here: advisories were not checked.' >&2; fi

bench: ## Measures Weir against its peers and writes bench/RESULTS.md (root; BENCH_ARGS=--help says more)
	@scripts/deps.sh bench
	$(CARGO) build $(LOCKED) --release --package weir
	$(CARGO) run $(LOCKED) --release --package bench -- --write bench/RESULTS.md $(BENCH_ARGS)

fuzz: ## Fuzzes the HTTP parser, DNS messages, packets, dumps of rules and the manifests, FUZZ_SECONDS each
	@scripts/deps.sh build
	fuzz/run $(FUZZ_SECONDS)
