# What a person runs and what CI runs are the same targets. `make` alone lists them.

PYTHON  ?= python3
ARGS    ?=
CASES   ?= tests/conformance/cases
WORKERS ?= 3
IMAGE   ?= vmsvc-grpc:dev

BIN     := .venv/bin
CACHE   := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/vmsvc-grpc
GRPCURL := $(CACHE)/bin/grpcurl
FIELDS  := vmsvc_grpc/model/fields.json
PROTOS  := $(wildcard proto/vmsvc/v1/*.proto)
LOCK    := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command 'make lock' $(ARGS)
COMMA   := ,
PIP_FLAGS := install --quiet --disable-pip-version-check
PIP     := $(BIN)/pip $(PIP_FLAGS)

# Where Python has the pip that `venv` would install: from there it installs the one of our lock, at once.
BUNDLED_PIP := import ensurepip, pathlib, sysconfig; \
	places = (sysconfig.get_config_var("WHEEL_PKG_DIR"), pathlib.Path(ensurepip.__file__).parent / "_bundled"); \
	print(*[each for place in places if place for each in pathlib.Path(place).glob("pip-*.whl")][:1])

# Where it is set, as in many images, each program that a test starts compiles all of its Python anew.
unexport PYTHONDONTWRITEBYTECODE

# Tests look here; set it to use a grpcurl of your own, which also needs no Go.
export VMSVC_TEST_GRPCURL ?= $(GRPCURL)

# What makes the Go client's stubs: plugins of protoc, built like grpcurl.
GO_STUBS  := $(CACHE)/bin/protoc-gen-go
GO_MODULE := github.com/vmsvc-grpc/vmsvc-grpc/clients/go

# Most tests wait, so that three at a time keep two cores busy (docs/adr/0060). Those of a file share a
# worker, as they share servers. Files go out in their order, in which tests/unit is last: its files are
# short, so that no worker has a long one when the others are done. A test that ends its worker has
# failed; another worker would be given the same test again.
SIDE_BY_SIDE = --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0

# $(call protoc,DIR): stubs and their types into DIR, and what reflection tells: the stubs
# hold no comments.
protoc = $(BIN)/python -m grpc_tools.protoc --proto_path=proto \
	--plugin=$(BIN)/protoc-gen-mypy_grpc --mypy_grpc_out=quiet:$(1) \
	--python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) \
	--include_source_info --descriptor_set_out=$(1)/vmsvc/v1/descriptor_set.binpb $(PROTOS)

# $(call protoc_go,DIR): the stubs of the Go client, whose module is rooted in DIR.
protoc_go = $(BIN)/python -m grpc_tools.protoc --proto_path=proto \
	--plugin=$(GO_STUBS) --plugin=$(GO_STUBS)-grpc \
	--go_out=$(1) --go_opt=module=$(GO_MODULE) \
	--go-grpc_out=$(1) --go-grpc_opt=module=$(GO_MODULE) $(PROTOS)

# $(call protoc_cases,DIR): what reads the cases for clients, into DIR.
protoc_cases = $(BIN)/python -m grpc_tools.protoc --proto_path=proto --proto_path=clients/conformance \
	--python_out=$(1) --pyi_out=$(1) clients/conformance/case.proto

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: serve
serve: .venv/serves ## Serve examples/ and hold their objects in out/ (flags: ARGS=)
	@$(BIN)/vmsvc-grpc serve --manifests examples --output out --page-listen 127.0.0.1:8090 $(ARGS)

.PHONY: test
test: .venv $(VMSVC_TEST_GRPCURL) kube promtool shells balancers chromium compiler ## Run every test but those of the night, WORKERS=3 at a time (ARGS=tests/...: some, one by one)
	$(BIN)/pytest $(or $(ARGS),$(SIDE_BY_SIDE))

.PHONY: test-nightly
test-nightly: .venv bench-tools kube ## Run the tests of the benchmarks, and of the clusters that tests run on
	$(BIN)/pytest -m nightly $(ARGS)

.PHONY: conformance
conformance: .venv ## Run the cases of CASES=DIR, through files and an API server
	$(BIN)/pytest tests/conformance --cases $(CASES) $(ARGS)

.PHONY: fuzz
fuzz: .venv ## Look for bytes that the transport does not survive (ARGS='--seconds 600 --keep')
	$(BIN)/python -m tests.fuzz $(ARGS)

.PHONY: soak
soak: .venv kube ## Every fault at once for 30 minutes, and a report (ARGS='--minutes 3 --seed 7')
	$(BIN)/python -m soak $(ARGS)

.PHONY: bench
bench: .venv bench-tools ## Measure streams and standstills, into bench/reports and README (ARGS='--only c')
	$(BIN)/python -m bench --readme README.md $(ARGS)

.PHONY: bench-quick
bench-quick: .venv bench-tools ## The same smaller, in 6 minutes, into out/bench
	$(BIN)/python -m bench --quick --into out/bench $(ARGS)

.PHONY: bench-files
bench-files: .venv ## Print what large files, and many, cost (ARGS='--only vms,tree')
	$(BIN)/python -m bench.files $(ARGS)

.PHONY: bench-cluster
bench-cluster: .venv kube ## Measure on a real API server, into bench/reports (ARGS='--only k,m')
	$(BIN)/python -m bench.cluster $(ARGS)

.PHONY: check
check: check-style check-types check-imports check-proto check-gen check-locks check-licences ## Run every check but the tests

.PHONY: check-style
check-style: .venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check

.PHONY: check-types
check-types: .venv
	$(BIN)/mypy

.PHONY: check-imports
check-imports: .venv
	$(BIN)/lint-imports --no-logo

.PHONY: check-proto
check-proto: .venv
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/buf breaking --against proto/baseline/vmsvc.binpb

.PHONY: check-gen
check-gen: .venv $(GO_STUBS)
	@made=$$(mktemp -d) && trap 'rm -rf "$$made"' EXIT && $(call protoc,"$$made") && \
	diff -r -x __init__.py -x __pycache__ clients/python/vmsvc/v1 "$$made/vmsvc/v1" || \
	{ echo 'The committed stubs are not those of proto/: run make gen.' >&2; exit 1; }
	@made=$$(mktemp -d) && trap 'rm -rf "$$made"' EXIT && $(call protoc_go,"$$made") && \
	diff -r clients/go/vmsvc/v1 "$$made/vmsvc/v1" || \
	{ echo 'The committed stubs of the Go client are not those of proto/: run make gen.' >&2; exit 1; }
	@made=$$(mktemp -d) && trap 'rm -rf "$$made"' EXIT && $(call protoc_cases,"$$made") && \
	for each in "$$made"/*; do diff "tests/client_conformance/$${each##*/}" "$$each" || \
	{ echo 'tests/client_conformance does not read clients/conformance/case.proto: run make gen.' >&2; exit 1; }; done
	@made=$$(mktemp) && trap 'rm -f "$$made"' EXIT && $(BIN)/python -m tests.crds.fields "$$made" && \
	diff $(FIELDS) "$$made" || \
	{ echo '$(FIELDS) is not that of the CRDs in tests/crds: run make gen.' >&2; exit 1; }
	@made=$$(mktemp) && trap 'rm -f "$$made"' EXIT && $(BIN)/python -m tests.monitoring.reference "$$made" && \
	diff docs/metrics.md "$$made" || \
	{ echo 'docs/metrics.md is not that of vmsvc_grpc/metrics.py: run make gen.' >&2; exit 1; }

# A lock names packages and hashes. Where they come from is each machine's own setting.
.PHONY: check-locks
check-locks: .venv
	@! grep -nE '://|^-' requirements*.lock
	@$(BIN)/pip check || { echo 'The locks lack what pyproject.toml asks for: run make lock.' >&2; exit 1; }

.PHONY: check-licences
check-licences: .venv
	@$(BIN)/python -m tests.licences >/dev/null

.PHONY: licences
licences: .venv ## List the licences of what is installed beside vmsvc-grpc
	@$(BIN)/python -m tests.licences

.PHONY: format
format: .venv ## Fix what ruff and buf can fix
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format
	$(BIN)/buf format --write

.PHONY: gen
gen: .venv $(GO_STUBS) ## Make the stubs from proto/, the table of fields from the CRDs, and docs/metrics.md
	$(call protoc,clients/python)
	$(call protoc_go,clients/go)
	$(call protoc_cases,tests/client_conformance)
	$(BIN)/python -m tests.crds.fields $(FIELDS)
	$(BIN)/python -m tests.monitoring.reference docs/metrics.md

.PHONY: baseline
baseline: .venv ## Record the API as released, for buf breaking
	mkdir -p proto/baseline
	$(BIN)/buf build --output proto/baseline/vmsvc.binpb

.PHONY: lock
lock: .venv ## Pin dependencies by hash (newest versions: ARGS=--upgrade)
	$(LOCK) --output-file requirements.lock pyproject.toml
	$(LOCK) --output-file requirements-dev.lock --constraints requirements.lock --group dev pyproject.toml
	$(LOCK) --output-file requirements-build.lock --constraints requirements-dev.lock --group build
	$(LOCK) --output-file requirements-sbom.lock --group sbom

.PHONY: wheels
wheels: .venv ## Build the wheels of server and client, into dist/
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--wheel-dir dist . ./clients/python

.PHONY: sbom
sbom: .venv/release ## Write what a release is made of (CycloneDX), to dist/vmsvc-grpc.cdx.json
	@mkdir -p dist
	.venv/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --spec-version 1.6 \
		--output-reproducible --output-file dist/vmsvc-grpc.cdx.json .venv/runtime

.PHONY: image
image: ## Build the container image IMAGE=
	docker build --tag $(IMAGE) .

.PHONY: chromium
chromium: .venv ## Install the Chromium that tests run, by apt-get, unless there is one
	@$(BIN)/python -m tests.browser >/dev/null 2>&1 || sh tests/tools/debian.sh "$${VMSVC_TEST_CHROMIUM:-chromium}" chromium fonts-dejavu-core

.PHONY: page-picture
page-picture: .venv chromium ## Make the picture of the page that the README shows
	$(BIN)/python -m tests.picture

.PHONY: grpcurl
grpcurl: $(VMSVC_TEST_GRPCURL) ## Build grpcurl, which tests run, into the cache

.PHONY: shells
shells: ## Install the shells and the terminal that tests run, by apt-get, unless they are there
	@sh tests/tools/debian.sh fish fish
	@sh tests/tools/debian.sh zsh zsh
	@sh tests/tools/debian.sh tmux tmux

.PHONY: balancers
balancers: ## Install the load balancers that tests run, by apt-get, unless they are there
	@sh tests/tools/debian.sh haproxy haproxy
	@sh tests/tools/debian.sh nginx nginx

.PHONY: compiler
compiler: ## Install the C compiler that Go's detector of races needs, by apt-get, unless there is one
	@sh tests/tools/debian.sh gcc gcc libc6-dev

.PHONY: promtool
promtool: .venv ## Build promtool, which checks the alerts, into the cache
	@$(BIN)/python -m tests.monitoring.promtool

.PHONY: kube
kube: .venv ## Build the kube-apiserver, etcd and kubectl that tests run, into the cache
	@$(BIN)/python -m tests.kube.binaries

# Always asked, as Go itself knows what has changed.
.PHONY: bench-tools
bench-tools: ## Build the benchmark's client and peers, in Go, into the cache
	@mkdir -p $(CACHE)/bin
	go build -C bench/go -buildvcs=false -o $(CACHE)/bin/vmsvc-load ./load
	go build -C bench/go -buildvcs=false -o $(CACHE)/bin/vmsvc-broadcast ./broadcast
	go build -C bench/go -buildvcs=false -o $(CACHE)/bin/vmsvc-controlplane ./controlplane
	go build -C bench/go -buildvcs=false -o $(CACHE)/bin/vmsvc-reviews ./reviews
	go build -C clients/go -buildvcs=false -o $(CACHE)/bin/vmsvc-follower ./internal/cmd/follow

# $(call needs_go,WHAT,ELSE): go on only with a Go that can do what is needed. Go 1.21 is the first that
# fetches the newer Go a module asks for, and knows this variable.
needs_go = test -n "$$(go env GOTOOLCHAIN 2>/dev/null)" || { echo '$(1) with Go 1.21 or newer, and finds none: apt-get install golang-go (Debian 12: add -t bookworm-backports)$(2).' >&2; exit 1; }

$(GO_STUBS): clients/go/tools/go.mod clients/go/tools/go.sum
	@$(call needs_go,make gen and make check build what makes stubs)
	@mkdir -p $(@D)
	go build -C clients/go/tools -o $(@D)/ tool
	@touch $@

$(GRPCURL): tests/tools/go.mod tests/tools/go.sum
	@$(call needs_go,make test builds grpcurl,$(COMMA) or set VMSVC_TEST_GRPCURL to a grpcurl)
	@mkdir -p $(@D)
	go build -C tests/tools -o $@ github.com/fullstorydev/grpcurl/cmd/grpcurl
	@touch $@

.PHONY: .venv
.venv: .venv/installed

.venv/installed: .venv/serves requirements-dev.lock
	$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

# What runs, without the tools that a first look has no use for. A lock is complete (check-locks), so
# nothing is resolved; and most modules of what it names are never imported, so none is compiled.
.venv/serves: requirements.lock requirements-build.lock pyproject.toml clients/python/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo 'vmsvc-grpc needs Python 3.11 or newer, and $(PYTHON) is not: set PYTHON=, as in make PYTHON=python3.12 serve.' >&2; exit 1; }
	$(PYTHON) -m venv --without-pip .venv
	@pip=$$($(PYTHON) -c '$(BUNDLED_PIP)' 2>/dev/null) && [ -n "$$pip" ] || \
	{ echo '$(PYTHON) has no pip to begin with: apt-get install python3-venv, or what has it here.' >&2; exit 1; }; \
	$(BIN)/python "$$pip/pip" $(PIP_FLAGS) --require-hashes --no-compile -r requirements-build.lock
	$(PIP) --require-hashes --no-compile --no-deps -r requirements.lock
	$(PIP) --no-compile --no-deps --no-build-isolation -e clients/python -e .
	@touch $@

# The tool that makes an SBOM, and what it looks at: all that is installed to serve, and no more.
.venv/release: .venv/serves requirements-sbom.lock
	$(BIN)/python -m venv --without-pip .venv/sbom
	$(BIN)/python -m venv --without-pip .venv/runtime
	$(BIN)/pip --python .venv/sbom install --quiet --no-compile --no-deps --require-hashes -r requirements-sbom.lock
	$(BIN)/pip --python .venv/runtime install --quiet --no-compile --no-deps --require-hashes -r requirements.lock
	@touch $@

.PHONY: clean
clean: ## Remove what make made here (not the cache of tools)
	rm -rf .venv out dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
