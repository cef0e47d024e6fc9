# make benchmark   the whole day: papermill runs the notebook, the table of runs is printed
# make test        everything that a change can break, on a CPU
# make lab         JupyterLab on the notebook (ARGS="--allow-root" passes options on)
# make report      report.html and report.md of a session (SESSION=name, else the latest)
# make test-slow, test-browser, test-campaign   what `make test` leaves out
# Parameters: make benchmark RUNS=5 SESSION=my-session ARGS="-p device cpu -p measure_iters 200"
# RESULTS=folder is where sessions are written, and where `make report` looks for them.

PYTHON ?= python3
RUNS ?= 3
ARGS ?=
RESULTS ?= results
override RESULTS := $(patsubst ~/%,$(HOME)/%,$(RESULTS))

# Expanded once, whatever takes its time in between; the suffix tells two of one second apart.
NAMED := $(SESSION)
ifeq ($(NAMED),)
override SESSION := $(shell date +%Y-%m-%dT%H-%M-%S)-$(shell od -An -N3 -tx1 /dev/urandom | tr -d " ")
endif

NOTEBOOK := J1_benchmark.ipynb
FOLDER := $(RESULTS)/$(SESSION)
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# papermill, ended by SIGTERM as by Ctrl-C: the kernel is stopped, what was executed is saved
PAPERMILL := $(BIN)/python -c 'import signal as s; \
    s.signal(s.SIGTERM, lambda *_: s.signal(s.SIGTERM, s.SIG_IGN) and s.default_int_handler(*_)); \
    from papermill.__main__ import papermill; papermill()'

# An environment whose Python is gone is made again.
$(shell $(BIN)/python -c '' 2>/dev/null || rm -f .venv/installed)

.PHONY: benchmark test test-slow test-browser test-campaign lint lab report clean
.NOTPARALLEL:  # what is measured has the machine to itself, with -j too

benchmark: .venv/installed
	@name='$(subst ','\'',$(SESSION))'; case "$$name" in [!A-Za-z0-9]* | *[!A-Za-z0-9._-]*) \
	    echo "error: SESSION='$$name': use letters, digits and . _ -, a letter or digit first" >&2; exit 1;; esac
	@! $(BIN)/python -m papermill $(NOTEBOOK) - --prepare-only $(ARGS) 2>/dev/null \
	    | grep -qE '^ *"(session|results_dir) = ' || \
	    { echo "error: ARGS sets session or results_dir: use SESSION=, RESULTS=" >&2; exit 1; }
	@test ! -e "$(FOLDER)/session.json" || \
	    { echo "error: $(FOLDER) holds results already: choose another SESSION" >&2; exit 1; }
	@mkdir -p "$(FOLDER)"
	@exec $(PAPERMILL) $(NOTEBOOK) "$(FOLDER)/$(NOTEBOOK)" --no-progress-bar \
	    -p runs $(RUNS) $(ARGS) -r session "$(SESSION)" -r results_dir "$(RESULTS)"
	@$(BIN)/python -m helpers.after.report "$(FOLDER)"

# two workers of one thread each; a file stays in one, as its sessions of the notebook are shared;
# what fails beside another test is run once more alone, and decides
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile || \
	    $(BIN)/python -m pytest --last-failed --last-failed-no-failures none  # again, alone

test-slow: .venv/installed
	$(BIN)/python -m pytest --runslow

test-browser: .venv/installed
	$(PIP_INSTALL) -r requirements-browser.txt
	$(BIN)/python -m pytest --runbrowser tests/browser

test-campaign: .venv/installed
	$(PIP_INSTALL) -r requirements-campaign.txt
	$(BIN)/python -m pytest --runslow tests/campaign

lint: .venv/installed
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .

lab: .venv/installed
	$(BIN)/python -m jupyterlab $(ARGS) $(NOTEBOOK)

report: .venv/installed
	@session="$(if $(NAMED),$(FOLDER),$$(ls -td "$(RESULTS)"/*/verdict.json 2>/dev/null | head -1))"; \
	session="$${session%/verdict.json}"; \
	test -n "$$session" || { echo "error: no complete session in $(RESULTS)" >&2; exit 1; }; \
	$(BIN)/python -m helpers.after.report markdown "$$session" && \
	$(BIN)/python -m helpers.after.report html "$$session"

# The stamp comes last: without it, what an interruption left is removed and made again.
.venv/installed: requirements.txt constraints.txt
	@command -v git >/dev/null || { echo "error: git is missing: apt install git" >&2; exit 1; }
	@command -v "$(PYTHON)" >/dev/null || \
	    { echo "error: $(PYTHON) is missing: apt install python3 (3.11 or newer)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "error: Python 3.11 or newer is needed, `"$(PYTHON)" --version` found" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || \
	    { echo "error: the venv module is missing: apt install python3-venv" >&2; exit 1; }
	@test -e $@ || rm -rf .venv
	@rm -f $@
	"$(PYTHON)" -m venv .venv
	$(PIP_INSTALL) -r requirements.txt
	@touch $@

clean:
	rm -rf .venv
