# Everything is one command; `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# PocketBase asks for a newer Go than many machines have: the toolchain line in
# go.mod is fetched by itself.
export GOTOOLCHAIN = auto
export CGO_ENABLED ?= 0

BIN     := groundwork
TOOLS   := .cache/bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/pocketbase/pocketbase.Version=$(VERSION)

# Pinned: an upgrade is a commit.
GOLANGCI_VERSION := v2.15.0
MAILPIT_VERSION  := v1.30.5

ADDR ?= 127.0.0.1:8090

.PHONY: help
help: ## List the commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-z-]*:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: build ## Build, migrate and serve on http://127.0.0.1:8090
	./$(BIN) serve --http $(ADDR)

.PHONY: build
build: sdk ## Build the static binary ./groundwork
	go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) .

# The page at the root address uses the stock JavaScript SDK, fetched by its
# lock file and embedded. Without npm the binary still builds and says so there.
SDK := pb_public/vendor/pocketbase.es.mjs
.PHONY: sdk
sdk: $(SDK)
$(SDK): web/package-lock.json
	@if command -v npm >/dev/null; then \
	  (cd web && npm ci --ignore-scripts --no-audit --no-fund --silent) && \
	  mkdir -p $(dir $@) && cp web/node_modules/pocketbase/dist/pocketbase.es.mjs $@ && touch $@; \
	else \
	  echo "npm is not installed: the page at the root address will say how to add the JavaScript SDK." >&2; \
	fi

.PHONY: test
test: sdk ## Run all tests; peers that are absent are skipped with their reason
	CGO_ENABLED=1 go test -race -timeout 20m ./jobs/... ./notifications/... ./internal/... 
	go test -timeout 30m ./...

.PHONY: compat
compat: ## Run PocketBase's own tests on an app with Groundwork (differences: compat/known.txt)
	go run ./compat

.PHONY: lint
lint: $(TOOLS)/golangci-lint ## Check formatting, import directions and common mistakes
	go vet ./...
	$(TOOLS)/golangci-lint run

$(TOOLS)/golangci-lint: Makefile
	@mkdir -p $(TOOLS)
	GOBIN=$(CURDIR)/$(TOOLS) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	@touch $@

.PHONY: tools
tools: $(TOOLS)/golangci-lint $(TOOLS)/mailpit ## Install the linter and the mail server that tests use

$(TOOLS)/mailpit: Makefile
	@mkdir -p $(TOOLS)
	GOBIN=$(CURDIR)/$(TOOLS) go install github.com/axllent/mailpit@$(MAILPIT_VERSION)
	@touch $@

.PHONY: image
image: ## Build the container image where an engine exists
	@for engine in docker podman buildah; do \
	  command -v $$engine >/dev/null && { [ $$engine != docker ] || docker info >/dev/null 2>&1; } || continue; \
	  echo "building with $$engine"; exec $$engine build --build-arg VERSION=$(VERSION) -t groundwork:$(VERSION) -t groundwork:latest .; \
	done; echo "No container engine is running here: start docker, or install podman or buildah." >&2; exit 1

.PHONY: soak
soak: build ## Kill the server in the middle of a 10,000-person send over all channels and of sign-ups, in full
	go run ./bench/soak -binary ./$(BIN) -people 10000 -kills 20
	go run ./bench/welcome -binary ./$(BIN) -signups 0 -kills 20

.PHONY: bench
bench: build ## Print the benchmarks' ratios
	go run ./bench/version-check
	go run ./bench/jobs
	go run ./bench/send -binary ./$(BIN)
	go run ./bench/welcome -binary ./$(BIN) -kills 0
	go run ./bench/account-mails -binary ./$(BIN)
	go run ./bench/throttle -binary ./$(BIN)
	go run ./bench/flood -binary ./$(BIN)
	go run ./bench/guess -binary ./$(BIN)

.PHONY: clean
clean: ## Remove what was built (not pb_data)
	rm -rf $(BIN) $(TOOLS) pb_public/vendor web/node_modules
