# `make` lists the targets. Everything here runs on Debian or Ubuntu from a
# checkout, Go and root; other systems need Docker and Compose installed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZ_TIME ?= 20s
BENCH_ARGS ?=

# The images and the Compose project; deploy/demo.sh and compose.yaml read them.
export WATCHER_IMAGE ?= portwatcher:local
export WORKLOAD_IMAGE ?= portwatcher-workload:local
export COMPOSE_PROJECT_NAME ?= portwatcher

# Settings of the demo targets; deploy/demo.sh and integration/demo have the defaults and
# check them.
export PORT BURST_COUNT BASE_PORT HOLD_MS INTERVAL_S FOLLOW DEMO_PORT WATCHER_PORT PROMETHEUS_PORT GRAFANA_PORT ALERTMANAGER_PORT

# In CI a test whose surroundings are missing fails instead of being skipped.
ifeq ($(CI),true)
export PORTWATCHER_REQUIRE := 1
endif

BUILD := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false
LDFLAGS := -s -w -X portwatcher/internal/version.Version=$(VERSION) -X portwatcher/internal/version.Commit=$(COMMIT)
IMAGE_ARGS := --build-arg VERSION=$(VERSION) --build-arg COMMIT=$(COMMIT)
TEST_PACKAGES := gcc libc6-dev debootstrap iproute2 ca-certificates prometheus chromium fonts-dejavu-core prometheus-alertmanager postfix dovecot-core
BENCH_PACKAGES := iproute2 lsof libbpf-tools bpftrace chromium fonts-dejavu-core

##@ Use

.PHONY: run
run: engine images ## Build, start portwatcher and the demo, follow the events (FOLLOW=0: print the first; DEMO_PORT=18080 WATCHER_PORT=9888)
	@deploy/demo.sh up

RUN_VARIANTS := run-ebpf run-netlink run-proc run-hf

.PHONY: $(RUN_VARIANTS)
run-ebpf: export PORTWATCHER_SOURCE := ebpf
run-netlink: export PORTWATCHER_SOURCE := netlink
run-proc: export PORTWATCHER_SOURCE := proc
run-hf: export PORTWATCHER_SOURCE := netlink
run-hf: export SCAN_INTERVAL ?= 0.1
run-hf: export BURST_SCANS ?= 5
run-hf: export BURST_DELAY ?= 0.02
run-ebpf: ## The same, but eBPF or nothing
run-netlink: ## The same without eBPF: sock_diag scans and destroy notifications
run-proc: ## The same by /proc alone
run-hf: ## The same without eBPF, with bursts of scans every 20 ms
$(RUN_VARIANTS): run

.PHONY: monitoring
monitoring: engine images ## portwatcher with Prometheus and Grafana, which are fetched (PROMETHEUS_PORT=9090 GRAFANA_PORT=3000)
	@deploy/demo.sh monitoring

.PHONY: alerts
alerts: engine images ## portwatcher with Alertmanager, which is fetched (ALERTMANAGER_PORT=9093)
	@deploy/demo.sh alerts

.PHONY: logs
logs: ## Follow portwatcher's events (FOLLOW=0: print and return)
	@deploy/demo.sh logs

.PHONY: stop
stop: ## Stop and remove the containers and networks; the journal stays
	@deploy/demo.sh stop

.PHONY: clean
clean: ## stop, and remove the journal, the images built here and the build folder
	@deploy/demo.sh clean
	rm -rf build

##@ Try on the demo container, while `make run` is up

DEMO_TARGETS := test-http test-udp test-tcp-burst test-udp-burst test-tcp-transient test-udp-transient kill-port verify-suite

.PHONY: $(DEMO_TARGETS)
test-http: ## Serve HTTP for a moment, and show what portwatcher reports (PORT=8081 HOLD_MS=50)
test-udp: ## Bind a UDP port for a moment (PORT=5300 HOLD_MS=50)
test-tcp-burst: ## Open TCP ports one after another (BURST_COUNT=20 BASE_PORT=20000 HOLD_MS=50 INTERVAL_S=0.01)
test-udp-burst: ## The same with UDP
test-tcp-transient: ## Open one TCP port for a moment (PORT=21000 HOLD_MS=50)
test-udp-transient: ## The same with UDP
kill-port: ## End what holds a TCP port in the demo container (PORT=8080; it comes back after 3 s)
verify-suite: ## Run all of these and compare portwatcher's log with what really happened
$(DEMO_TARGETS): build/demo
	@build/demo $@

.PHONY: build/demo
build/demo: go
	@$(BUILD) -o build/demo ./integration/demo

##@ Build

.PHONY: build
build: go ## Build the static binaries into build/
	$(BUILD) -ldflags '$(LDFLAGS)' -o build/image/portwatcher ./cmd/portwatcher
	$(BUILD) -ldflags '-s -w' -o build/workload ./integration/workload
	@[ -r /etc/ssl/certs/ca-certificates.crt ] || deploy/ensure-packages.sh ca-certificates
	@install -D -m 0644 /etc/ssl/certs/ca-certificates.crt build/image/etc/ssl/certs/ca-certificates.crt

.PHONY: images
images: engine build ## Pack the binaries into images, without any other image
	docker build -q --target prebuilt $(IMAGE_ARGS) -t $(WATCHER_IMAGE) .
	docker build -q --target prebuilt -t $(WORKLOAD_IMAGE) -f integration/workload/Dockerfile .

.PHONY: image
image: engine build ## Build portwatcher's image from source in the golang image
	docker build $(IMAGE_ARGS) -t $(WATCHER_IMAGE) .

##@ Check

.PHONY: test
test: go ## All tests: unit, kernel, integration (as root, with an engine)
	@deploy/ensure-packages.sh $(TEST_PACKAGES)
	@deploy/ensure-engine.sh
	$(GO) test -race -short -timeout 12m $$($(GO) list ./... | grep -v -e '/integration$$' -e '/conformance$$')
# In full, without -race, and one package after another: the storms of one would be load for the others.
	$(GO) test -timeout 20m -p 1 -parallel 4 ./integration ./internal/alert/... ./internal/journal ./internal/server/conformance
	cd integration/bench && $(GO) vet ./... && $(GO) test ./...

.PHONY: unit
unit: go ## The tests that need no engine; those that need root are skipped without it
	PORTWATCHER_REQUIRE= $(GO) test $$($(GO) list ./... | grep -v '^portwatcher/integration$$')

.PHONY: lint
lint: go ## gofmt, go vet, staticcheck
	@files=$$(gofmt -l cmd docs internal integration); \
	  if [ -n "$$files" ]; then echo "not formatted by gofmt:"; echo "$$files"; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

.PHONY: fuzz
fuzz: go ## Each fuzz test for FUZZ_TIME=20s
	@grep -rl --include='*_test.go' '^func Fuzz' cmd internal integration | while read -r file; do \
	  for name in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' "$$file"); do \
	    echo "== $$name in $$(dirname "$$file")"; \
	    $(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZ_TIME) "./$$(dirname "$$file")"; \
	  done; done

.PHONY: bench
bench: go ## Go benchmarks, then portwatcher beside other tools (BENCH_ARGS="--markdown README.md" writes the report kept here; --help lists its flags)
	@deploy/ensure-packages.sh $(BENCH_PACKAGES)
	$(GO) test -run '^$$' -bench . -benchmem ./...
	cd integration/bench && $(GO) run . $(BENCH_ARGS)

.PHONY: docs
docs: go ## Write the tables and examples of docs/ from the program
	$(GO) test ./docs -run '^TestTables$$' -update
	$(GO) test ./internal/alert -run '^TestManual$$' -update
	$(GO) test ./internal/alert/notify -run '^TestMessagesPage$$' -update

.PHONY: screenshot
screenshot: go ## Take the picture of the page, docs/page.png, with example data
	@deploy/ensure-packages.sh chromium fonts-dejavu-core
	PORTWATCHER_REQUIRE=1 PORTWATCHER_SCREENSHOTS=$(CURDIR)/docs $(GO) test -count 1 -run '^TestPicture$$' ./internal/server/page

.PHONY: engine
engine: ## Start a Docker engine where none runs; installs one on Debian or Ubuntu as root
	@deploy/ensure-engine.sh

.PHONY: go
go: ## Check that Go is there and new enough
	@deploy/ensure-go.sh

.PHONY: help
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  %-20s %s\n", $$1, $$2 }' Makefile
