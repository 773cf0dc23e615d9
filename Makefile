# make demo   from a fresh clone to a picture: install, render a drive, train, evaluate, predict
# make test   ruff and pytest
# make faults  the long tests: 25 kills of a run, 20,000 hostile inputs for each parser
# make oldest  pytest with the oldest packages supported, in .venv-oldest
#
# PYTHON       the interpreter that makes .venv (3.10 or newer)
# TORCH_INDEX  the package index to take torch and torchvision from; PyTorch's own index of CPU
#              wheels saves several GB on a machine without a GPU (the default brings CUDA)
PYTHON ?= python3
TORCH_INDEX ?=
BIN := .venv/bin

.PHONY: demo test faults oldest clean

demo: .venv/installed
	$(BIN)/python -m synthetic.demo demo

test: .venv/installed
	$(BIN)/ruff check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

faults: .venv/installed
	$(BIN)/python -m pytest tests/test_resume.py -k killed_at_random --kills 25
	$(BIN)/python -m pytest tests/test_hostile.py --hypothesis-profile=thorough

oldest: .venv-oldest/installed
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n 2

.venv-oldest/installed: requirements.txt requirements-export.txt requirements-dev.txt \
		.ci/constraints-oldest.txt
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install -r requirements-dev.txt -c .ci/constraints-oldest.txt
	touch $@

.venv/installed: requirements.txt requirements-export.txt requirements-dev.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch torchvision
	$(BIN)/pip install -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv .venv-oldest demo
