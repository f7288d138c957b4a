# Every target works from a fresh clone, in a .venv of its own. Python 3.11 or newer and make are all it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8000

.PHONY: demo run viewer test test-slow test-slides test-cluster check bench soak promtool orthanc image-steps train-ensemble train-lite evaluate clean
.DELETE_ON_ERROR:

# What serves: no torch, no CUDA.
$(VENV)/serve: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu]'
	touch $@

# What develops and trains: the same, with torch's CPU build and the tools.
$(VENV)/dev: $(VENV)/serve
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,train,dev]'
	touch $@

# What compares: LitServe, and worker processes.
$(VENV)/bench: $(VENV)/dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,train,dev,bench]'
	touch $@

# What serves on many machines: Ray, and HAProxy.
$(VENV)/cluster: $(VENV)/dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,train,dev,cluster]'
	touch $@

demo: $(VENV)/serve  ## the real service on a free port, one tissue tile through it, out/demo.geojson and out/demo.png
	$(BIN)/python -m app.demo

run: $(VENV)/serve  ## serve on 127.0.0.1:8000
	$(BIN)/karyon serve --port $(PORT)

viewer: app/viewer/dist/openseadragon.min.js  ## put the viewer's library in place; needs npm

app/viewer/dist/openseadragon.min.js: app/viewer/package.json app/viewer/package-lock.json app/viewer/build.js
	cd app/viewer && npm ci && npm run --silent build

test: $(VENV)/dev  ## all tests that take seconds
	$(BIN)/python -m pytest -m "not slow and not gpu and not cluster"

test-slow: $(VENV)/dev  ## the tests that take minutes
	$(BIN)/python -m pytest -m "slow and not gpu"

test-slides: $(VENV)/dev  ## real slides of every kind from end to end, and jobs killed at twenty moments
	$(BIN)/python -m pytest tests/api/test_real_slides.py tests/api/test_slide_crash.py

test-cluster: $(VENV)/cluster  ## a real Ray cluster: the same answers, replicas killed and replaced under load
	$(BIN)/python -m pytest -m cluster

check: $(VENV)/dev  ## format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not slow and not gpu and not cluster"

bench: $(VENV)/bench  ## side by side against plain implementations; out/bench/results.json
	$(BIN)/python -m tests.benchmarks.bench_separation
	$(BIN)/python -m tests.benchmarks.bench_geojson
	$(BIN)/python -m tests.benchmarks.bench_lite
	$(BIN)/python -m tests.benchmarks.bench_scheduler
	$(BIN)/python -m tests.benchmarks.bench_slides
	$(BIN)/python -m tests.benchmarks.bench_first_call
	$(BIN)/python -m tests.benchmarks.bench_workers
	$(BIN)/python -m tests.benchmarks.bench_latency
	$(BIN)/python -m tests.benchmarks.bench_fairness
	$(BIN)/python -m tests.benchmarks.bench_overload
	$(BIN)/python -m tests.benchmarks.bench_goodput
	$(BIN)/python -m tests.benchmarks.bench_faults
	$(BIN)/python -m tests.benchmarks.bench_rivals
	$(BIN)/python -m tests.benchmarks.results

soak: $(VENV)/dev  ## half an hour of mixed load with callers who hang up and bad input; does memory grow?
	$(BIN)/python -m tests.benchmarks.bench_soak

# Debian's package unpacked, not installed: no service starts, and nothing outside this folder changes.
promtool: $(VENV)/dev  ## Prometheus and promtool into .venv/bin, where apt-get has them; tests that need them skip else
	@if command -v promtool > /dev/null || test -x $(BIN)/promtool; then echo "promtool is there"; \
	elif ! command -v apt-get > /dev/null; then echo "no apt-get: the tests of alerts by promtool will be skipped"; \
	else there=$$(mktemp -d) && (cd $$there && { apt-get download -q prometheus \
	    || { apt-get update -q && apt-get download -q prometheus; }; } && dpkg-deb -x prometheus_*.deb .) \
	    && cp $$there/usr/bin/promtool $$there/usr/bin/prometheus $(BIN)/ \
	    || echo "apt-get has no prometheus: the tests of alerts by promtool will be skipped"; rm -rf $$there; fi

# The same, with the libraries that are not here yet.
orthanc: $(VENV)/dev  ## the archive Orthanc and the checker dciodvfy into .venv, where apt-get has them; tests skip else
	@if test -x $(VENV)/orthanc/usr/sbin/Orthanc; then echo "orthanc is there"; \
	elif ! command -v apt-get > /dev/null; then echo "no apt-get: the tests with an archive will be skipped"; \
	else there=$$(mktemp -d) && wanted="apt-get -s install --no-install-recommends orthanc orthanc-dicomweb dicom3tools" \
	    && { $$wanted > $$there/list 2> /dev/null || { apt-get update -q && $$wanted > $$there/list; }; } \
	    && (cd $$there && apt-get download -q $$(awk '/^Inst/ {print $$2}' list) \
	    && for each in *.deb; do dpkg-deb -x $$each unpacked; done) && rm -rf $(VENV)/orthanc \
	    && cp -a $$there/unpacked $(VENV)/orthanc \
	    || echo "apt-get has no orthanc: the tests with an archive will be skipped"; rm -rf $$there; fi

image-steps: $(VENV)/dev  ## the CPU image's steps in an empty folder, and the service started from there; minutes
	$(BIN)/python docker/rehearse.py

train-ensemble: $(VENV)/dev  ## train the paper's ensemble and its baseline briefly, on a GPU; goes on where it was stopped
	$(BIN)/python -m training.ensemble --brief
	$(BIN)/python -m training.tune runs/seresnext50-brief runs/seresnext101-brief
	test -d runs/store/karyon-ensemble/1 || $(BIN)/python -m training.export runs/seresnext50-brief \
	    runs/seresnext101-brief --name karyon-ensemble --version 1 --weights int8 --store runs/store

train-lite: $(VENV)/dev  ## train the network of karyon-lite on the CPU, its teachers first: many hours; goes on where it was stopped
	$(BIN)/python -m training.train training/configs/lite.toml
	$(BIN)/python -m training.train training/configs/efficient-lite-dense.toml
	$(BIN)/python -m training.train training/configs/screen-efficient-lite-full.toml
	$(BIN)/python -m training.tune runs/lite runs/efficient-lite-dense
	test -d runs/store/lite-pair/1 || $(BIN)/python -m training.export runs/lite runs/efficient-lite-dense \
	    --name lite-pair --version 1 --store runs/store
	$(BIN)/python -m training.distill training/configs/efficient-lite-full-distilled.toml --store runs/store
	$(BIN)/python -m training.distill training/configs/efficient-lite-full-longer.toml --store runs/store
	$(BIN)/python -m training.tune runs/efficient-lite-full-longer

evaluate: $(VENV)/dev  ## scores of the shipped model on the held-out images; out/evaluate/
	$(BIN)/python -m training.evaluate karyon-lite --data lizard --source consep

clean:
	rm -rf out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
