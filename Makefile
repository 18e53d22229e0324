# Needs Go, git, make, gcc and bash; everything else is pinned in go.mod and tools/go.mod.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

# A clone that another user owns must build too: git refuses to describe it, so
# no version control stamp is asked for, and git is told that this tree is meant.
export GOFLAGS := $(filter-out -buildvcs=%,$(GOFLAGS)) -buildvcs=false
ifndef GIT_CONFIG_COUNT
export GIT_CONFIG_COUNT := 1
export GIT_CONFIG_KEY_0 := safe.directory
export GIT_CONFIG_VALUE_0 := $(CURDIR)
endif

BIN := .bin
STAMP := $(BIN)/.stamp

# The modules whose tests run; tools/ only pins tools.
MODULES := $(patsubst %/go.mod,%,$(shell find . -name go.mod -not -path './tools/*' -not -path './.*/*' -not -path '*/testdata/*'))

# Debian packages that tests start as programs, such as a database.
DEB_PACKAGES := postgresql pgbouncer

# In CI every test runs, whatever the cache remembers.
TEST_FLAGS := -race -timeout 15m $(if $(CI),-count=1)

FUZZTIME ?= 10s
ONLY ?=
PART ?= 1/1
BENCHFLAGS ?=
E2EFLAGS ?=

.PHONY: help
help: ## Lists these targets.
	@sed -n 's/^\([a-z0-9-]*\):.* ## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

.PHONY: demo
demo: ## Runs examples/quickstart.
	@mkdir -p $(BIN)
	@go build -o $(BIN)/quickstart ./examples/quickstart
	@$(BIN)/quickstart

.PHONY: test
test: packages $(BIN)/testcount ## Runs all tests of all modules with the race detector.
	@failed=0; \
	for m in $(MODULES); do \
		(cd $$m && go test $(TEST_FLAGS) -json ./...) | $(BIN)/testcount || failed=1; \
	done; \
	exit $$failed

.PHONY: lint
LINTS := gofmt vet staticcheck golangci-lint tidy buf-lint buf-breaking generated
lint: ## Checks format, vet, staticcheck, golangci-lint, go.mod files, .proto files and generated code.
	@$(MAKE) --keep-going $(LINTS)

.PHONY: $(LINTS)
gofmt:
	@echo $@; \
	found=$$(find . -name '*.go' -not -path './.*/*' -print0 | xargs -0 -r gofmt -l); \
	if [ -n "$$found" ]; then echo "not formatted, run gofmt -w on:"; echo "$$found"; exit 1; fi

vet:
	@for m in $(MODULES); do echo "$@ $$m"; (cd $$m && go vet ./...); done

staticcheck: $(STAMP)
	@for m in $(MODULES); do echo "$@ $$m"; (cd $$m && $(CURDIR)/$(BIN)/staticcheck ./...); done

golangci-lint: $(STAMP)
	@for m in $(MODULES); do echo "$@ $$m"; \
		(cd $$m && $(CURDIR)/$(BIN)/golangci-lint run --config $(CURDIR)/.golangci.yml ./...); done

tidy:
	@for m in $(MODULES) tools; do echo "go mod $@ $$m"; (cd $$m && go mod tidy -diff); done

buf-lint: $(STAMP)
	@echo $@; $(BIN)/buf lint

buf-breaking: $(STAMP)
	@echo $@; \
	tag=$$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || true); \
	if [ -z "$$tag" ]; then echo "no tag yet, nothing to compare with"; exit 0; fi; \
	old=$$(mktemp -d); trap 'rm -rf "$$old"' EXIT; \
	git archive "$$tag" buf.yaml proto examples/proto | tar -x -C "$$old"; \
	$(BIN)/buf breaking --against "$$old"

generated: $(STAMP)
	@echo $@; \
	new=$$(mktemp -d); trap 'rm -rf "$$new"' EXIT; \
	$(BIN)/buf generate -o "$$new"; \
	for d in proto examples/proto internal/testproto; do diff -r -x '*.proto' -x '*.md' $$d "$$new/$$d"; done || { echo "generated code is not current, run make generate"; exit 1; }

.PHONY: generate
generate: $(STAMP) ## Generates Go from the .proto files.
	@$(BIN)/buf generate

.PHONY: mutants
mutants: ## Takes out one check at a time and demands that its test goes red; ONLY=H1 picks some, PART=1/2 a half.
	@go run ./e2e/mutants -only '$(ONLY)' -part '$(PART)'

.PHONY: mutation
mutation: ## Changes one operator at a time in the packages that decide, and scores their tests; ONLY=hop picks one.
	@go run ./e2e/internal/mutation -only '$(ONLY)'

.PHONY: soak
soak: packages ## Runs a million queries of many tenants over pooled connections, with errors and killed backends between them.
	@go test -count=1 -timeout 30m -run '^TestMixed$$' -v ./data/rls -operations 1000000

.PHONY: model
model: ## Searches the protocol's model for attacks, with all checks and without some.
	@$(MAKE) packages DEB_PACKAGES=spin
	@go run ./conformance/model

.PHONY: fuzz
fuzz: ## Runs every fuzz target for FUZZTIME (10s) each, all of them though one finds something.
	@targets=$$(grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . || true); \
	if [ -z "$$targets" ]; then echo "no fuzz target yet"; exit 0; fi; \
	log=$$(mktemp); trap 'rm -f "$$log"' EXIT; failed=0; \
	while IFS=: read -r file func; do \
		echo "$$(dirname $$file) $${func#func }"; \
		(cd $$(dirname $$file) && go test -run '^$$' -fuzz "^$${func#func }\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x .) 2>&1 | tee "$$log" && continue; \
		if grep -q '^    context deadline exceeded$$' "$$log" && ! grep -q 'Failing input' "$$log"; then \
			echo "nothing was found: before Go 1.27 the end of the time may fail a target (go.dev/issue/75804)"; \
		else failed=1; fi; \
	done <<<"$$targets"; \
	exit $$failed

.PHONY: e2e
e2e: ## Runs the mesh harness, on real SPIRE if SPIRE_BIN_DIR names its programs; E2EFLAGS='-calls 200000 -kills 40' for less.
	@[ $$(id -u) != 0 ] || $(MAKE) packages DEB_PACKAGES=iproute2 # for network namespaces, which need root
	@mkdir -p $(BIN)
	@go build -o $(BIN)/harness ./e2e/harness
	@exec $(BIN)/harness $(E2EFLAGS)

.PHONY: bench
bench: ## Measures calls beside mTLS alone and beside others' checks, for ten minutes; BENCHFLAGS=-short for one.
	@mkdir -p $(BIN)
	@go -C e2e/bench run . -out $(CURDIR)/$(BIN)/bench.json -svg $(CURDIR)/$(BIN)/bench.svg $(BENCHFLAGS)

.PHONY: figures
figures: ## Measures as make bench does and writes docs/performance.md.
	@go -C e2e/bench run . -write $(CURDIR)/docs/performance.md $(BENCHFLAGS)

.PHONY: clean
clean: ## Removes what make built.
	@rm -rf $(BIN)

.PHONY: packages
packages:
	@missing=""; \
	for p in $(DEB_PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ $$(id -u) = 0 ]; then as=""; \
	elif sudo -n true 2>/dev/null; then as="sudo -n"; \
	else echo "the tests need these Debian packages; install them:$$missing"; exit 1; fi; \
	$$as apt-get update -qq && $$as apt-get install -y -qq --no-install-recommends $$missing

# The tools that tools/go.mod pins, built once.
$(STAMP): tools/go.mod tools/go.sum
	@echo "building the tools of tools/go.mod; this takes some minutes the first time"
	@mkdir -p $(BIN)
	@go build -modfile=tools/go.mod -o $(BIN)/ tool
	@touch $@

.PHONY: $(BIN)/testcount
$(BIN)/testcount:
	@mkdir -p $(BIN)
	@go build -o $@ ./e2e/internal/testcount
