# `make` lists what can be done; .ci/run does what every change has to pass.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME ?= 10s
CONFIG ?= config/embedded.yml

# Nothing here needs C but the race detector; without it, build and test share
# what they compile.
export CGO_ENABLED = 0

# The registry speaks to Google's storage by HTTP. This leaves out the client for
# gRPC, which is a sixth of the program.
export GOFLAGS := $(GOFLAGS) -tags=disable_grpc_modules

.DEFAULT_GOAL := help
.PHONY: help run build test race fuzz bench bench-hold lint interop clean redis-server

help: ## list what can be done
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build ## serve CONFIG (config/embedded.yml: a registry and its account on localhost:5000, in ./data)
	@bin/tidings hold init $(CONFIG)
	@testdata/scripts/next $(CONFIG)
	@exec bin/tidings serve $(CONFIG)

build: ## build bin/tidings
	go build -ldflags="-s -w" -o bin/tidings ./cmd/tidings

test: redis-server ## run the tests; installs redis-server if it is missing
	go test ./...

race: redis-server ## run the tests with the race detector
	CGO_ENABLED=1 go test -race -timeout 20m ./...

fuzz: ## run each fuzz test for FUZZTIME (10s)
	testdata/scripts/fuzz $(FUZZTIME)

bench: ## compare pushes and pulls with the registry alone
	testdata/scripts/bench

bench-hold: ## compare the account's writes and reads with the reference PDS
	go run ./internal/benchhold

lint: ## gofmt, go vet, staticcheck
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "gofmt these: $$unformatted"; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...

interop: build ## talk to a running registry with clients that we did not write
	testdata/interop/run.sh

clean: ## delete bin; ./data, with its key and its images, stays
	rm -rf bin

redis-server:
	@testdata/scripts/need-redis
