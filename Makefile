# Shortcuts for a clone of this repository. `make help` lists them; CONTRIBUTING.md tells when to use which.
#
# GNU make ends with status 2 whatever the status of the command that failed, and names that status in its last line
# ("Error 7"). A script that needs the guest command's own status should call bin/sandbox itself.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL: # prerequisites are listed in the order in which they must run

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
# The version comes from here, so Go need not ask git, which refuses to answer in a clone that belongs to somebody else.
export GOFLAGS := $(shell go env GOFLAGS) -buildvcs=false

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: setup build image ## set up, build, and run testdata/hello inside of a sandbox
	bin/sandbox run --rm --share testdata/hello -- sh ./hello.sh

.PHONY: test
test: setup-test lint unit integration ## set up for tests, and run all of them

# As our programs are built, so that the compiler's work on the standard library is done once: on a new machine that is
# two fifths of what make run compiles.
GOSETUP := CGO_ENABLED=0 go run -trimpath ./internal/setup

.PHONY: setup
setup: ## install what running sandboxes takes, where it is missing (root or sudo)
	@$(GOSETUP) run

.PHONY: setup-test
setup-test: ## the same, and what the tests take
	@$(GOSETUP) test

# The command line's library can print itself as a manual, and the Markdown reader that it takes for that spends a
# quarter of each start of the program on its tables (1.6 of 6.9 ms).
TAGS := urfave_cli_no_docs

# The agent is a part of each image, and read at each start: without what only debuggers read, it is a third smaller.
BUILDAGENT = CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)'

.PHONY: build
build: ## build bin/sandbox, by which git reaches repositories in guests too, and bin/sandbox-agent
	CGO_ENABLED=0 go build -trimpath -tags $(TAGS) -ldflags '-X main.version=$(VERSION)' -o bin/ ./cmd/sandbox
	ln -sf sandbox bin/git-remote-sandbox
	$(BUILDAGENT) -o bin/ ./cmd/sandbox-agent

.PHONY: image
image: build ## build the default image, unless it is up to date
	bin/sandbox image build --recipe debian

.PHONY: agent-aarch64
agent-aarch64: build
	GOARCH=arm64 $(BUILDAGENT) -o bin/sandbox-agent-aarch64 ./cmd/sandbox-agent

.PHONY: image-aarch64
image-aarch64: agent-aarch64 ## the same for an ARM processor, which takes many minutes the first time where that has to be emulated
	bin/sandbox image build --recipe debian --arch aarch64

.PHONY: image-test
image-test: agent-aarch64 ## the least image for an ARM processor that boots, for the tests
	bin/sandbox image build --recipe debian --bare --arch aarch64

# Git does not track the parts, and of a Git repository Nix takes only what is tracked: hence path:.
.PHONY: image-flake
image-flake: image ## build the image of testdata/flake with Nix, which needs neither a network nor nixpkgs
	mkdir -p testdata/flake/parts
	CGO_ENABLED=0 go build -trimpath -o testdata/flake/parts ./testdata/flake/mkimage
	$(BUILDAGENT) -o testdata/flake/parts ./cmd/sandbox-agent
	dir=$$(bin/sandbox image inspect debian | sed -n 's/^  "dir": "\(.*\)",$$/\1/p'); \
	cp "$$dir"/kernel "$$dir"/initrd.img testdata/flake/parts
	bin/sandbox image build path:testdata/flake

# Programs of tests lie in directories called testdata, which ./... passes over.
TESTPROGRAMS := ./testdata/flake/mkimage ./cmd/sandbox/testdata/vsock ./image/debian/testdata/hostile

.PHONY: lint
lint: ## format, vet, staticcheck, and the state of go.mod
	@unformatted=$$(go tool gofumpt -l .); \
	if [[ -n $$unformatted ]]; then \
		echo "These files are not formatted; go tool gofumpt -w . formats them:"; echo "$$unformatted"; exit 1; \
	fi
	go vet ./... $(TESTPROGRAMS)
	go tool staticcheck ./... $(TESTPROGRAMS)
	go mod tidy -diff
	go mod verify

# A package takes seconds, and on a slow machine minutes: what takes an hour hangs.
.PHONY: unit
unit: ## the tests that boot nothing, with the race detector
	CGO_ENABLED=1 go test -race -timeout 60m ./...

.PHONY: nix-check
nix-check: ## the tests of the flake, which are a part of unit; docs/nix.md says how to give them a tree of nixpkgs
	go test -count=1 -v ./nix/...

.PHONY: nix-boot
nix-boot: ## build the flake's plain image from Debian's binaries, and boot it; docs/nix.md says what it takes
	SANDBOX_TEST_GUESTS=1 go test -count=1 -timeout 0 -v -run 'TestBoot$$' ./nix

# The tests that boot guests together have no time limit, unless who calls us has one.
INTEGRATION_TIMEOUT ?= 0

.PHONY: integration
integration: image image-test ## the tests that boot guests, from the default image and the least one for an ARM processor
	SANDBOX_TEST_GUESTS=1 go test -count=1 -timeout $(INTEGRATION_TIMEOUT) ./cmd/sandbox/...

# Not those that need more than the guest has: emulators of other machines, Nix, a compiler.
NESTED := mount workspace snapshot fork warm run daily disk hostile http life lifecycle network not-ready ports public qmp reboot remote resize secrets shares smoke sshagent

.PHONY: nested
nested: image ## the test that boots guests under KVM within a guest, with all scripts that can run there
	SANDBOX_TEST_GUESTS=1 SANDBOX_TEST_NESTED='$(NESTED)' go test -count=1 -timeout 0 -v -run 'TestNested$$' ./cmd/sandbox

.PHONY: ai-agents
ai-agents: build ## build an image with AI agents from npm, and run them in guests, with keys and logins of providers on this machine
	bin/sandbox image build --recipe debian --name ai-agents --with claude-code --with codex --with gemini-cli --with opencode
	SANDBOX_TEST_GUESTS=1 SANDBOX_TEST_AI_AGENTS=ai-agents go test -count=1 -timeout 0 -v -run 'TestAIAgents$$' ./cmd/sandbox

.PHONY: bench
bench: image ## measure how fast sandboxes are (about a quarter of an hour), and write bench.json; docs/benchmarks.md explains it
	go run ./internal/bench $(BENCH)

.PHONY: clean
clean: ## remove what was built here; images and sandboxes stay (sandbox image rm, sandbox rm)
	rm -rf bin bench.json testdata/hello/written-by-guest.txt
