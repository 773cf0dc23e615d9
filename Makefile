# make demo    install, render a street drive, train, evaluate and predict: a picture in demo/
# make app     open a page in the browser to try the demo's network, after make demo
# make test    run ruff and pytest
# make faults  run the long tests: kill a run 25 times, try 20,000 hostile inputs on each parser
# make oldest  run pytest with the oldest supported packages, in .venv-oldest
# make encoders  train 18 encoders for 5 steps each, export and time them: a table
# make gpu     compare a GPU with the CPU, and measure its speed
# make clean   delete both environments and the demo
#
# PYTHON       the interpreter to create the environments with (3.10 or newer)
# TORCH_INDEX  the package index for torch and torchvision; without a GPU, PyTorch's index of CPU
#              wheels saves several GB (the default index installs CUDA)
PYTHON ?= python3
TORCH_INDEX ?=
BIN := .venv/bin

.PHONY: demo app test faults oldest encoders gpu clean

demo: .venv/installed
	$(BIN)/python -m synthetic.demo demo

app: .venv/installed
	$(BIN)/python app.py --load_weights_folder "$$(ls -dv demo/model/models/weights_* | tail -1)" \
	    --examples demo/drive_*/*/*_drive_0002_sync/image_02/data

test: .venv/installed
	$(BIN)/ruff check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --durations=15

faults: .venv/installed
	$(BIN)/python -m pytest tests/training/test_resume.py -k killed_at_random --kills 25
	$(BIN)/python -m pytest tests/test_hostile.py --hypothesis-profile=thorough

oldest: .venv-oldest/installed
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n 2 --dist worksteal

encoders: .venv/installed
	$(BIN)/python -m benchmarks.encoders

gpu:  # in .venv if it is there, else with the machine's own PyTorch
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) benchmarks/gpu.py

.venv-oldest/installed: $(wildcard requirements*.txt) .ci/constraints-oldest.txt
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install -r requirements-dev.txt -c .ci/constraints-oldest.txt
	.venv-oldest/bin/pip install --no-deps imagecorruptions-imaug
	touch $@

.venv/installed: $(wildcard requirements*.txt)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch torchvision
	$(BIN)/pip install -r requirements-dev.txt
	$(BIN)/pip install --no-deps imagecorruptions-imaug
	touch $@

clean:
	rm -rf .venv .venv-oldest demo
