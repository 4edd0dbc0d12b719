# runner: `make help` lists the targets.

GO       ?= go
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
FUZZTIME ?= 20s
QUARTER   = $(shell expr \( $(FUZZTIME:s=) + 3 \) / 4)s
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.version=$(VERSION)

.DEFAULT_GOAL := help
.PHONY: help build setup check test race lint fmt golden fuzz bench bench-peers kill lab clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*##/\t/' | expand -t 14

build: ## build bin/runner
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/runner ./cmd/runner

setup: ## install what the tests start: redis-server, sshd, ZooKeeper (with java), nutcracker, rsync, graphviz, chromium, node (Debian packages), and internal/readers (npm)
	@./scripts/setup

check: setup lint race fuzz ## all that must pass: what CI runs

test: setup ## the tests, without the race detector
	$(GO) test ./...

race: setup ## the tests, with the race detector
	$(GO) test -race -timeout 20m ./...

lint: ## vet, gofmt and golangci-lint, import table included
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "not formatted:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(GOLANGCI) run --timeout 15m ./...

fmt: ## format Go files and the shipped runbooks
	gofmt -w $$(git ls-files '*.go')
	$(GO) run ./cmd/runner fmt $(filter-out %.sandbox.yaml,$(wildcard runbooks/*.yaml runbooks/lib/*.yaml))

golden: ## rewrite golden files, the JSON Schema included
	UPDATE=1 $(GO) test ./...

fuzz: ## fuzz parser, expressions and journal, FUZZTIME each (20s), and a server's answers, a quarter of it each
	$(GO) test -run '^$$' -fuzz '^FuzzParse$$' -fuzztime $(FUZZTIME) ./schema
	$(GO) test -run '^$$' -fuzz '^FuzzCompile$$' -fuzztime $(FUZZTIME) ./runner/expression
	$(GO) test -run '^$$' -fuzz '^FuzzOpen$$' -fuzztime $(FUZZTIME) ./runner/journal
	$(GO) test -run '^$$' -fuzz '^FuzzParseSlots$$' -fuzztime $(QUARTER) ./steps/pika
	$(GO) test -run '^$$' -fuzz '^FuzzParseInfo$$' -fuzztime $(QUARTER) ./steps/pika

bench: build ## speed and memory, written to docs/performance.md
	$(GO) run ./internal/bench -runner bin/runner -out docs/performance.md

bench-peers: build ## the same 1000 steps with go-task and ansible-core
	$(GO) run ./internal/bench -runner bin/runner -peers

kill: setup ## the long lane: 200 SIGKILLs at random instants of a mixed run and of a scale-out, a switch and a hand-over killed at every request and step
	KILLS=200 $(GO) test -count 1 -run 'Killed' -timeout 90m -v ./internal/acceptance

lab: ## the shipped runbooks against real Pika and Codis programs, where there are any (docs/lab.md)
	LAB=1 $(GO) test -count 1 -timeout 90m -v ./internal/lab

clean: ## remove what was built
	rm -rf bin
