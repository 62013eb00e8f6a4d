# Few verbs. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PY := .venv/bin/python
UV_VERSION := 0.13.9
# Some environments forbid Python to keep what it compiled. Then each process of a test compiles all that it imports, for seconds.
unexport PYTHONDONTWRITEBYTECODE

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

.venv/.installed: pyproject.toml requirements/dev.lock
	@python3 -c 'import sys; sys.exit("error: voicefleet needs Python 3.11 or later, found " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@test -x .venv/bin/uv || { python3 -m venv .venv && .venv/bin/python -m pip install --quiet uv==$(UV_VERSION); }
	@.venv/bin/uv pip sync --quiet --python $(PY) --require-hashes requirements/dev.lock
	@.venv/bin/uv pip install --quiet --python $(PY) --no-deps --no-build-isolation -e .
	@touch $@

venv: .venv/.installed ## the Python environment of this checkout, from the locked versions

deps: ## Debian packages that the tests and the local cluster need (root)
	@.ci/install-debian-packages

lock: ## write requirements/*.lock again from pyproject.toml
	@test -x .venv/bin/uv || { python3 -m venv .venv && .venv/bin/python -m pip install --quiet uv==$(UV_VERSION); }
	@.venv/bin/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --all-extras --group dev pyproject.toml -o requirements/dev.lock
	@for role in operator dataplane pipeline; do .venv/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --extra $$role pyproject.toml -o requirements/$$role.lock -c requirements/dev.lock || exit 1; done
	@.venv/bin/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --group build -o requirements/build.lock -c requirements/dev.lock

BPF := dataplane/voicefleet_dataplane/fastpath/bpf
bpf: $(BPF)/relay.bpf.o ## the kernel fast path, compiled by clang

$(BPF)/relay.bpf.o: $(BPF)/relay.bpf.c $(wildcard $(BPF)/*.h) $(BPF)/compile
	@$(BPF)/compile $@

# `make test` asks for all examples of the properties (tests/support/examples.py).
check: export VOICEFLEET_EXAMPLES ?= quick
check: export VOICEFLEET_SEEDS ?= 50
check: .venv/.installed ## ruff, mypy strict, import-linter, unit and property tests, a short fuzz: about a minute
	@.ci/check

# What it finds stands in tests/fuzz/corpus and, where it breaks something, in .venv/fuzz. The program of the fast path runs in the kernel
# (BPF_PROG_TEST_RUN), on frames of another seed each time; for this alone it needs root.
SECONDS := 240
fuzz: .venv/.installed ## every parser of bytes from outside, by coverage, and the fast path's program; SECONDS=240 in all, ONLY=stun
	@$(PY) -m tests.fuzz --seconds $(SECONDS) $(if $(ONLY),--only $(ONLY))
ifeq ($(ONLY),)
	@$(MAKE) --no-print-directory deps bpf
	@VOICEFLEET_FRAMES=40000 VOICEFLEET_FRAMES_SEED=$$(od -An -N4 -tu4 /dev/urandom) .venv/bin/pytest -q tests/kernel/test_fastpath_random.py
endif

control-plane: deps .venv/.installed ## the operator on a real API server without nodes: faults, changes, reasons
	@$(PY) -m e2e.cluster build
	@$(STORIES) -n 2 --dist worksteal tests/control_plane

kernel: deps bpf .venv/.installed ## the fast path in network namespaces (root)
	@.venv/bin/pytest -q tests/kernel

# Browsers, fleets and recognisers share the machine's cores: a story that failed is told once more, by itself. It is on the screen both
# times; one that fails twice fails.
STORIES = told() { .venv/bin/pytest -q -o cache_dir=.pytest_cache/$@ "$$@" || { echo "--- once more, only what failed"; .venv/bin/pytest -q -o cache_dir=.pytest_cache/$@ --last-failed --last-failed-no-failures none "$$@"; }; }; told

interop: deps .venv/.installed ## other people's WebRTC stacks against ours, on loopback
	@$(STORIES) -n 2 --dist loadfile tests/interop

interop-matrix: deps .venv/.installed ## every stack of tests/interop/matrix, and the table of docs/clients.md (ARGS="Pion aiortc": only these)
	@.ci/install-debian-packages debian-packages-matrix.txt
	@$(PY) -m tests.interop.matrix $(ARGS)

image: deps ## the images, and onto the nodes of the local cluster when it runs (root); TAG=dev
	@python3 -m e2e.cluster image --tag $(or $(TAG),dev)

cluster: deps ## the local Kubernetes cluster: start it, or find it running (root)
	@python3 -m e2e.cluster up

cluster-down: ## take the local cluster away, whatever state it is in
	@python3 -m e2e.cluster down

# The release before this one, for the stories of upgrades. A cluster of your own pulls its images.
cluster-images: deps .venv/.installed
	@$(PY) -m e2e.cluster up --images
ifneq ($(VOICEFLEET_USE_CURRENT_CONTEXT),1)
	@$(PY) -m e2e.cluster image --tag previous
endif

e2e: cluster-images .venv/.installed ## stories on the real cluster (starts it when it is not up)
ifeq ($(VOICEFLEET_USE_CURRENT_CONTEXT),1)
	@echo "the cluster of the current context: e2e/cluster, which tests the local cluster itself, is left out"
	@$(STORIES) e2e --ignore e2e/cluster
else
	@$(STORIES) e2e
endif

check-old-kubernetes: deps .venv/.installed ## CRDs, CEL, RBAC and the operator against the oldest API server we support (builds it once: minutes)
	@$(PY) -m e2e.old_kubernetes

test: ## everything: check, kernel, interop, control-plane, e2e; minutes by part and the slowest stories at its end
	@$(MAKE) --no-print-directory deps venv
	@VOICEFLEET_SEEDS=10000 VOICEFLEET_EXAMPLES=full python3 -m tests.parts

bench-relay: deps bpf .venv/.installed ## the relay beside coturn, a Go relay and the kernel, in namespaces (root, 15 minutes; ARGS=--quick)
	@$(PY) -m bench.relay $(ARGS)

bench-ring: .venv/.installed ## the ring with and without its bound, and what moves: counted in virtual time (1 minute)
	@$(PY) -m bench.ring $(ARGS)

bench-media: deps .venv/.installed ## what a call costs by backend, and how soon an answer leaves, beside Pion (6 minutes; ARGS=--quick)
	@$(PY) -m bench.media $(ARGS)

bench-sctp: deps .venv/.installed ## our SCTP beside aiortc's and Pion's, and what hostile packets cost (4 minutes; ARGS=--quick)
	@$(PY) -m bench.sctp $(ARGS)

bench-pipeline: deps .venv/.installed ## what the engines of a voice pipeline cost (1 minute; ARGS=--quick)
	@$(PY) -m bench.pipeline $(ARGS)

bench-operator: deps .venv/.installed ## ten thousand pods on a thousand nodes that KWOK plays, and one operator (25 minutes; ARGS=--quick)
	@$(PY) -m bench.operator_scale $(ARGS)

attack: deps .venv/.installed ## attacks on a fleet on loopback, and what they cost calls in progress (3 minutes; ARGS=--quick, ARGS="--only garbage")
	@$(PY) -m bench.attack $(ARGS)

bench-docs: .venv/.installed ## the tables and plots of README.md and docs/ from bench/results/
	@$(PY) -m bench.docs

bench-sessions: deps .venv/.installed ## a million sessions in a real Redis: pages, memory, heartbeats
	@$(PY) -m bench.sessions $(ARGS)

demo: deps .venv/.installed ## a cluster, a fleet on it, ten concurrent calls through it, a spoken question answered
	@$(PY) -m e2e.demo

.PHONY: attack check-old-kubernetes cluster-images control-plane help venv deps lock bpf check kernel interop interop-matrix image cluster cluster-down e2e test bench-media bench-pipeline bench-relay bench-ring bench-sctp bench-sessions bench-operator bench-docs demo fuzz
