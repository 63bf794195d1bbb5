# The two commands of the README are `make demo` and `make test`.

SHELL       := /bin/bash
TARGET      := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
CARGO_OUT   := target/$(TARGET)
BUNDLE      := target/bundle
PANTRY      := target/pantry
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: demo run test test-bundle guest lint needs bundle bench soak fuzz

## Build with the bundle inside, and walk a package through everything.
demo: $(PANTRY)
	$(PANTRY) demo

## The same, then leave the server running and print what to type next.
run: $(PANTRY)
	$(PANTRY) demo --keep

## Everything: the real binary, over real sockets. The list of what was skipped comes before the summary.
test: test-bundle
	@scripts/test

## The bundle that the tests share, made by the program under test from this machine's programs.
test-bundle: needs
	cargo build --features fault-points --bins
	rm -rf target/test-bundle.new
	$(CARGO_OUT)/debug/pantry rootfs assemble --work target/assemble --out target/test-bundle.new
	rm -rf target/test-bundle && mv target/test-bundle.new target/test-bundle

## Tests of the jail on another kernel, in an emulated machine without network: limits by cgroup version 2.
## `docs/operations/guest.md` says what it needs and shows; it is no part of `make test`.
guest:
	@scripts/guest

lint:
	cargo fmt --check
	cargo clippy --all-targets --features fault-points -- -D warnings

needs:
	@scripts/needs

## The release program with the bundle embedded.
$(PANTRY): needs FORCE
	cargo build --release
	rm -rf $(BUNDLE).new
	$(CARGO_OUT)/release/pantry rootfs assemble --work target/assemble --out $(BUNDLE).new
	$(CARGO_OUT)/release/pantry rootfs check $(BUNDLE).new
	rm -rf $(BUNDLE) && mv $(BUNDLE).new $(BUNDLE)
	$(CARGO_OUT)/release/pantry rootfs embed --layout $(BUNDLE) --out $(PANTRY).new
	mv $(PANTRY).new $(PANTRY)

bundle: $(PANTRY)

## Every measurement; `docs/benchmarks.md` says what each means and how long it takes.
bench: $(PANTRY)
	cargo bench --bench appliance --bench registry --bench scale --bench sandbox --bench hostile --bench state

## Ten minutes of pushes, pulls and deletes under collection and kill -9; fails when anything is lost or left.
soak: $(PANTRY)
	cargo bench --bench soak

## Each fuzz target for FUZZ_SECONDS, from its seeds. Needs cargo-fuzz and a nightly compiler; what it finds is in
## fuzz/artifacts. Parsers are safe Rust, so no sanitizer is needed.
FUZZ_SECONDS ?= 120
FUZZ_TARGETS := $(basename $(notdir $(wildcard fuzz/targets/*.rs)))
fuzz:
	cd fuzz && set -e; for target in $(FUZZ_TARGETS); do \
	    mkdir -p corpus/$$target; \
	    cargo +nightly fuzz run --sanitizer none $$target corpus/$$target seeds/$$target -- \
	        -max_total_time=$(FUZZ_SECONDS) -max_len=8192 -print_final_stats=1; \
	done

FORCE:

