# Two commands do everything: `make try` predicts and draws without PyTorch, `make test` runs all tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
PROMPT ?= Data visualization empowers users to

.PHONY: try plugins test lint types docs wheel bench clean

try: $(VENV)/.installed  ## set up .venv without PyTorch, and predict
	$(BIN)/onnxlens predict "$(PROMPT)"

# Outside of this folder, whose settings for pytest are not theirs.
plugins: $(VENV)/.installed  ## begin a plugin of each kind, install it, test it and use it
	set -e; scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; for kind in sampler visualizer; do \
		$(BIN)/onnxlens plugins new my_$$kind --kind $$kind -o "$$scratch/$$kind" >/dev/null; \
		$(PIP) "$$scratch/$$kind[test]"; \
		$(BIN)/python -m pytest -q "$$scratch/$$kind"; \
	done
	$(BIN)/onnxlens generate "The cat sat" -n 8 --seed 1 --sampler "my_sampler=0.2 | temperature=0.8"
	$(BIN)/onnxlens view my_visualizer "The cat sat"

test: $(VENV)/.installed-dev  ## run all tests
	$(BIN)/python -m pytest -n auto --dist loadgroup

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy cannot follow an editable install whose folders are mapped, so it sees an ordinary one.
types: $(VENV)/.installed-dev
	rm -rf build/typed
	$(PIP) --no-deps --target build/typed .
	cd build/typed && MYPYPATH=. ../../$(BIN)/mypy --config-file ../../pyproject.toml -p onnxlens

docs: $(VENV)/.installed-dev  ## are the generated parts of the docs fresh?
	$(BIN)/python docs/build.py --check

wheel: $(VENV)/.installed-dev  ## build the wheel
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
	$(PIP) --editable '.[plots]'
	touch $@

# torch by its exact version first: asked for as a range, pip would look for the newest build instead.
$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(PIP) --editable '.[dev]'
	touch $@ $(VENV)/.installed
