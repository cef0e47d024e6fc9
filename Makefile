# make benchmark   the whole day: papermill runs the notebook, the verdict is printed
# make test        everything that a change can break, on a CPU
# make lab         JupyterLab on the notebook
# make report      report.html and report.md of a session (SESSION=name, else the latest)
# make test-campaign   the campaign on Dask, with the dependencies that only it needs
# Parameters: make benchmark RUNS=5 SESSION=my-session ARGS="-p device cpu -p measure_iters 200"

PYTHON ?= python3
RUNS ?= 3
SESSION ?= $(shell date +%Y-%m-%dT%H-%M-%S)
ARGS ?=
RESULTS ?= results

NOTEBOOK := J1_benchmark.ipynb
BIN := .venv/bin
FOLDER := $(RESULTS)/$(SESSION)
# the session that `make report` reports: the named one, else the latest that is complete
LATEST = $(shell ls -td $(RESULTS)/*/verdict.json 2>/dev/null | head -1 | xargs -r dirname)
REPORTED = $(if $(filter command line environment,$(origin SESSION)),$(FOLDER),$(LATEST))

.PHONY: benchmark test test-slow test-browser test-campaign lint lab report clean
.DELETE_ON_ERROR:

benchmark: .venv/installed
	@test ! -e "$(FOLDER)/session.json" || { \
	    echo "error: $(FOLDER) already holds results: choose another SESSION, or leave it out"; exit 1; }
	@mkdir -p "$(FOLDER)"
	@# papermill rewrites its copy after each cell: it gets its name when it is whole, also when
	@# interrupted, which the shell must survive
	trap : INT; $(BIN)/papermill $(NOTEBOOK) "$(FOLDER)/.$(NOTEBOOK)" --no-progress-bar \
	    -p runs $(RUNS) -r session "$(SESSION)" -r results_dir "$(RESULTS)" $(ARGS); \
	    status=$$?; mv -f "$(FOLDER)/.$(NOTEBOOK)" "$(FOLDER)/$(NOTEBOOK)"; exit $$status
	@$(BIN)/python -m helpers.after.report "$(FOLDER)"

test: lint
	$(BIN)/pytest

# nbval's own command lines are tested by tests/test_notebook.py, with papermill's
test-slow: .venv/installed
	$(BIN)/pytest --runslow

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

test-browser: .venv/installed requirements-browser.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-browser.txt
	$(BIN)/pytest --runbrowser tests/browser

test-campaign: .venv/installed requirements-campaign.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-campaign.txt
	$(BIN)/pytest --runslow tests/campaign

report: .venv/installed
	$(BIN)/python -m helpers.after.report markdown "$(REPORTED)"
	$(BIN)/python -m helpers.after.report html "$(REPORTED)"

lab: .venv/installed
	$(BIN)/jupyter lab $(NOTEBOOK)

.venv/installed: requirements.txt
	@command -v git >/dev/null || { echo "error: git is missing: apt install git"; exit 1; }
	@command -v $(PYTHON) >/dev/null || \
	    { echo "error: $(PYTHON) is missing: apt install python3 (3.11 or newer)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "error: Python 3.11 or newer is needed, `$(PYTHON) --version` found"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	    { echo "error: the venv module is missing: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

clean:
	rm -rf .venv
