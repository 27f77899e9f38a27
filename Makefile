# skiff: every command a developer needs. `make` alone lists them.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

export SKIFF_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/skiff-dev

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GO       ?= go
# NVIDIA marks functions that its own binding wraps; nothing here calls them.
export CGO_CFLAGS ?= -O2 -g -Wno-deprecated-declarations

LDFLAGS  := -s -w -X main.version=$(VERSION)
LAUNCHER := runtime/launch/embedded/bin/launcher
# Pinned, so that a new release of the linter cannot turn a green tree red by itself.
GOLANGCI_VERSION := v2.15.0
GOLANGCI := $(SKIFF_CACHE)/tools/golangci-lint-$(GOLANGCI_VERSION)/golangci-lint

.PHONY: help build launcher nvml demo test lint bench engine images tools minio corpus clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: launcher nvml ## build bin/skiff, and bin/skiff-nvml where a C compiler is at hand
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/skiff ./cmd/skiff

# The launcher is embedded in skiff, so it is built first; go leaves it as it is when nothing changed.
launcher:
	@mkdir -p $(dir $(LAUNCHER))
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-s -w' -o $(LAUNCHER) ./cmd/launcher

nvml:
	@if cc=$$($(GO) env CC) && command -v $${cc%% *} >/dev/null; then \
	  echo "CGO_ENABLED=1 $(GO) build -o bin/skiff-nvml ./plugins/nvml"; \
	  CGO_ENABLED=1 $(GO) build -trimpath -ldflags '-s -w' -o bin/skiff-nvml ./plugins/nvml; \
	else \
	  echo "no C compiler: bin/skiff-nvml is left out, so NVIDIA GPUs are not seen (install gcc and libc6-dev)"; \
	fi

demo: ## build, then run a whole training pipeline and show what came of it
	@examples/demo.sh

test: ## lint and every test; installs an engine and the test images when it may
	@test/all.sh

lint: launcher tools ## gofmt, vet, golangci-lint with staticcheck, house rules
	@GOLANGCI=$(GOLANGCI) test/lint.sh

bench: build ## measure against the floors, write docs/benchmarks.md
	@test/bench/run.sh

engine: ## install and start a Docker engine where none answers
	@test/engine.sh

images: ## build and tag the images that the tests run
	@test/images/build.sh

corpus: ## compile the corpus and the examples again with the kfp SDK
	@test/corpus/compile.sh

tools: $(GOLANGCI) ## install the linter into the cache

$(GOLANGCI):
	@echo "building golangci-lint $(GOLANGCI_VERSION) into $(@D), once"
	@mkdir -p $(@D)
	@cd $(@D) && GOFLAGS= GOBIN=$(@D) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

minio: ## build the object store that the tests run into the cache
	@test/minio.sh

clean: ## remove what build and demo made here; the cache stays
	rm -rf bin dist .demo $(LAUNCHER)
