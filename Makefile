# `make help` lists every target. `make demo` and `make test` do all their own set-up.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup build build-filter build-ts test test-long soak demo lint proto schema format bench bench-signal bench-collector bench-redis clean distclean

FILTER_SOURCES := asconfig.json $(shell find filter/assembly -name '*.ts' 2>/dev/null)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing: npm packages, Debian packages, Envoy (NO_INSTALL=1 only checks)
	@scripts/setup.sh

build: build-filter build-ts ## the filter and the TypeScript parts

build-filter: build/meshpulse.wasm ## build/meshpulse.wasm

build/meshpulse.wasm: $(FILTER_SOURCES)
	@mkdir -p build
	npx --no-install asc --config asconfig.json --target release

build-ts: ## TypeScript into build/js
	npx --no-install tsc -p tsconfig.json

# A fault of style fails the run, but hides no test.
test: setup build ## set up, build, lint, and run every test of test/**/*.test.ts (brings redis-server)
	@scripts/setup.sh redis
	@$(MAKE) --no-print-directory lint; lint=$$?; scripts/test.sh test && exit $$lint

test-long: setup build ## the longer suites: test/**/*.long.ts, and full counts in the others (TEST_LONG=1)
	@scripts/setup.sh redis
	@TEST_LONG=1 scripts/test.sh long

soak: setup build ## an hour of load: 500 configurations in 20 min (SOAK_PUSHES, SOAK_MINUTES, SOAK_RATE), figures of the collector
	@scripts/setup.sh redis
	@TEST_LONG=1 scripts/test.sh soak

demo: setup build ## the shop on real Envoys, about 50 s (KEEP=1 stays up; STORE=redis REPLICAS=2: two collectors on one Redis)
	@if [ "$$STORE" = redis ]; then scripts/setup.sh redis; fi
	@node build/js/demo/src/main.js

lint: proto ## eslint with types, prettier, protos
	npx --no-install eslint .
	npx --no-install prettier --check --log-level warn .

proto: ## protos: lint, and compatibility with the last release
	@scripts/proto.sh

schema: build-ts ## docs/schema.md from the protos and the exporters
	@node build/js/scripts/schema.js >docs/schema.md

format: ## let prettier rewrite the sources
	npx --no-install prettier --write --log-level warn .

bench: setup build ## CPU and latency of the filter, as a table (takes minutes)
	@node build/js/bench/filter/main.js

bench-signal: setup build ## failed call to directive elsewhere, beside Redis PUBLISH (three minutes; brings redis-server)
	@scripts/setup.sh redis && node build/js/bench/signal/main.js

bench-collector: setup build ## CPU of the collector for one event, beside plain gRPC and Go (three minutes; needs Go)
	@node build/js/bench/collector/main.js

bench-redis: setup build ## what it costs the collector to put an event into Redis, beside ioredis and redis-benchmark (half a minute)
	@scripts/setup.sh redis && node build/js/bench/redis/main.js

clean: ## remove what was built
	rm -rf build

distclean: clean ## remove what was built and installed
	rm -rf node_modules .cache
