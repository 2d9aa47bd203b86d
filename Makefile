# `make` lists the targets; .ci/run has to pass for every change.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME ?= 10s
CONFIG ?= config/embedded.yml
MINUTES ?= 10

# Only the race detector and internal/interop/relay need C. Without it, build and
# test share the build cache.
export CGO_ENABLED = 0

# The registry uses Google's storage over HTTP. This omits the gRPC client, which is
# a sixth of the binary.
export GOFLAGS := $(GOFLAGS) -tags=disable_grpc_modules

# The tests of the program take the longest, so they start first.
PACKAGES = ./cmd/... ./...

# Packages that start goroutines or servers, themselves or in their tests: the race detector finds
# nothing in the tests of others.
CONCURRENT = $(addprefix ./,$(sort $(dir $(shell grep -rlE '$(CONCURRENCY)' --include='*.go' --exclude-dir='bench*' --exclude-dir=chaos --exclude-dir=interop $(SOURCES)))))
CONCURRENCY = ^\s*go [a-z(]|\.Go\(|httptest\.New(Unstarted|TLS)?Server
SOURCES = atproto cmd internal middleware notifier

.DEFAULT_GOAL := help
.PHONY: help run build test race fuzz bench bench-account bench-hold lint interop chaos clean redis-server

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build ## serve CONFIG (config/embedded.yml: a registry and its account on localhost:5000, in ./data)
	@bin/tidings hold init $(CONFIG)
	@testdata/scripts/next $(CONFIG)
	@exec bin/tidings serve $(CONFIG)

build: ## build bin/tidings
	go build -ldflags="-s -w" -o bin/tidings ./cmd/tidings

test: redis-server ## run the tests; installs redis-server if it is missing
	go test $(PACKAGES)

race: redis-server ## run the tests of concurrent packages with the race detector
	CGO_ENABLED=1 go test -race -vet=off $(CONCURRENT)

fuzz: ## run each fuzz test for FUZZTIME (10s)
	testdata/scripts/fuzz $(FUZZTIME)

bench: ## compare pushes and pulls with the plain registry
	testdata/scripts/bench

bench-account: ## compare the delivery of a backlog with what the reference PDS takes from one client
	go run ./internal/benchaccount

bench-hold: ## compare the account's writes and reads with the reference PDS
	go run ./internal/benchhold

lint: ## gofmt, go vet, staticcheck
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "gofmt these: $$unformatted"; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...

interop: build ## test a running registry with clients, verifiers and a relay by others
	testdata/interop/run.sh

chaos: ## let a registry, its account's PDS and the network fail for MINUTES (10), as SEED determines
	go run ./internal/chaos -minutes=$(MINUTES) $(if $(SEED),-seed=$(SEED))

clean: ## delete bin, but not ./data
	rm -rf bin

redis-server:
	@testdata/scripts/need-redis
