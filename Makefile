# What there is to do here; `make help` lists it.

TARGET ?= x86_64-unknown-linux-musl
ARGS ?=
SECONDS ?= 600
# The tests with real daemons mostly wait, so at least four run at once, even on fewer cores.
TEST_THREADS ?= $(shell cores=$$(nproc); [ $$cores -gt 4 ] && echo $$cores || echo 4)

.DEFAULT_GOAL := help
.PHONY: help run build static test sim test-faults test-clock fuzz check deny advisories bench-quick bench-flood bench-takeover clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build and start the daemon with config/app.toml (Ctrl-C ends it); ARGS="--config PATH" for another file
	cargo run --release --bin wing-crontab -- $(ARGS)

build: ## bin/wing-crontab, for this machine
	cargo build --release --bin wing-crontab
	install -D target/release/wing-crontab bin/wing-crontab

static: ## bin/wing-crontab, one static binary for any Linux host of this architecture
	rustup target add $(TARGET)
	command -v musl-gcc >/dev/null || scripts/install-packages musl-tools
	cargo build --release --bin wing-crontab --target $(TARGET)
	install -D target/$(TARGET)/release/wing-crontab bin/wing-crontab

test: ## every test; installs MariaDB, Consul and croniter where they are missing; TEST_THREADS=2 runs two at once
	scripts/install-test-services
	scripts/python-venv
	cargo test -- --test-threads=$(TEST_THREADS)

sim: ## SEEDS=10000 histories of a simulated cluster; SEED=n shows one of them, step by step
	cargo test --profile sim --test sim -- --nocapture

test-faults: ## three hosts, one fault after the other, and a table of the effects; then each part of one host; as root; WING_FAULTS=long: a minute each
	scripts/install-test-services
	cargo test --test cluster disasters -- --nocapture
	cargo test --test daemon failing -- --test-threads=$(TEST_THREADS)

fuzz: ## SECONDS=600 of libFuzzer for each target of tests/fuzz, with a nightly compiler; FUZZ=http for one of them
	scripts/install-check-tools cargo-fuzz
	scripts/fuzz $(SECONDS) $(FUZZ)

test-clock: ## a virtual machine whose clock is set by a second and an hour; needs QEMU and a kernel image, fetches them as root
	scripts/install-packages qemu-system-x86 linux-image-cloud-amd64 busybox
	cargo test --test clock -- --ignored --nocapture

check: ## all that must pass before a commit: format, clippy, dependencies, every test
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	$(MAKE) deny
	$(MAKE) test

deny: ## licences, duplicates and sources of the dependencies; builds cargo-deny once, where it can be fetched
	scripts/install-check-tools cargo-deny
	if [ -x target/tools/bin/cargo-deny ]; then target/tools/bin/cargo-deny check licenses bans sources; fi

advisories: ## known vulnerabilities of the dependencies; fetches their database
	scripts/install-check-tools cargo-deny
	target/tools/bin/cargo-deny check advisories

bench-quick: ## how late jobs start, against a bare loop that starts as many of the same command
	cargo build --release --bin wing-crontab
	cargo bench --bench quick

bench-flood: ## 50,000 runs due in one second: memory, answers, and the jobs beside the flood
	cargo build --release --bin wing-crontab
	cargo bench --bench flood

bench-takeover: ## how long a cluster of three is without a leader, for each fault; installs services as `make test`
	scripts/install-test-services
	cargo build --release --bin wing-crontab
	cargo bench --bench takeover

clean: ## remove all that was built
	cargo clean
	rm -rf bin
