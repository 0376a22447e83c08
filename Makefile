# Set-up, quick start and checks, one command each. Nothing is installed outside $(VENV).
# Runs with GNU make 3.81 or newer and any POSIX shell.

VENV = .venv
ROUNDS = 60
OUTPUT = runs/quickstart
ARGS =
# The only tool that resolves with overrides; needed by `make lock` alone.
UV = uv==0.13.9
# Needed by `make audit` alone.
AUDIT = pip-audit==2.10.1

# The lock that $(VENV) holds. Copied there last, so that an interrupted install does not count.
INSTALLED = $(VENV)/requirements.txt
PY = $(VENV)/bin/python

.PHONY: help run test quick lint format ray jupyter notebook tracking lock audit
.DELETE_ON_ERROR:

help: ## list the commands
	@sed -n 's/^\([a-z]*\):.*## /  make \1: /p' Makefile

run: $(INSTALLED) ## train on the embedded data and compare [ROUNDS, OUTPUT, ARGS=--flag]
	$(PY) run_experiment.py --dataset=emnist --data_source=embedded --rounds=$(ROUNDS) \
	    --algorithms=local,fedavg,reptile,per_fedavg --num_validation_clients=10 \
	    --num_test_clients=30 --adaptation_learning_rates=0.02,0.05,0.1 \
	    --output_dir=$(OUTPUT) $(ARGS)

# Two processes: most of a test is TensorFlow preparing graphs, which takes one core.
test: lint ## all checks: lint, then every test [ARGS for pytest]
	$(PY) -m pytest --numprocesses=2 --dist=loadfile $(ARGS)

quick: lint ## lint, and the tests that train nothing [ARGS for pytest]
	$(PY) -m pytest --numprocesses=2 --dist=loadfile -m "not slow" $(ARGS)

lint: $(INSTALLED) ## style and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(INSTALLED) ## rewrite the code in the project's style
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# Ray is an extra: a quarter of a gigabyte that one machine does not need.
ray: $(VENV)/requirements-ray.txt ## add Ray, for rounds on several machines (docs/cluster.md)

$(VENV)/requirements-ray.txt: requirements-ray.txt $(INSTALLED)
	@if $(PY) -c 'import sys; sys.exit(sys.version_info >= (3, 10))'; then \
	    echo "Ray is for Python 3.10 and 3.11, but $(VENV) has an older one: rm -rf $(VENV)," \
	        "and choose another with PYTHON=/path/to/python." >&2; exit 1; \
	fi; \
	$(PY) -m pip install --quiet --disable-pip-version-check \
	    --no-deps --require-hashes -r requirements-ray.txt && \
	cp requirements-ray.txt $@

jupyter: $(VENV)/requirements-notebook.txt ## add Jupyter (docs/notebooks.md)

notebook: jupyter ## open Jupyter on examples/quickstart.ipynb [ARGS for JupyterLab]
	$(PY) -m jupyterlab $(ARGS) examples/quickstart.ipynb

tracking: $(VENV)/requirements-tracking.txt ## add MLflow and W&B, for --log_to (docs/notebooks.md)

$(VENV)/requirements-notebook.txt $(VENV)/requirements-tracking.txt: $(VENV)/%: % $(INSTALLED)
	@$(PY) -m pip install --quiet --disable-pip-version-check \
	    --no-deps --require-hashes -r $* && \
	cp $* $@

# The extras' locks keep the versions of the first one, on top of which they are installed.
lock: ## regenerate requirements.txt from requirements.in, and the extras' [ARGS=--upgrade]
	@$(FIND_PYTHON); tools=$$(mktemp -d); trap 'rm -rf "$$tools"' EXIT; \
	"$$python" -m venv "$$tools" && "$$tools/bin/python" -m pip install --quiet $(UV) && \
	"$$tools/bin/uv" pip compile --quiet --universal --python-version 3.9 --generate-hashes \
	    --override requirements-overrides.txt --custom-compile-command 'make lock' \
	    --output-file requirements.txt $(ARGS) requirements.in && \
	cp requirements.txt requirements-ray.txt && \
	"$$tools/bin/uv" pip compile --quiet --universal --python-version 3.9 --generate-hashes \
	    --override requirements-ray-overrides.txt --custom-compile-command 'make lock' \
	    --output-file requirements-ray.txt requirements-ray.in && \
	"$$tools/bin/uv" pip compile --quiet --universal --python-version 3.9 --generate-hashes \
	    --constraint requirements.txt --override requirements-overrides.txt \
	    --custom-compile-command 'make lock' \
	    --output-file requirements-notebook.txt $(ARGS) requirements-notebook.in && \
	"$$tools/bin/uv" pip compile --quiet --universal --python-version 3.9 --generate-hashes \
	    --constraint requirements.txt --constraint requirements-notebook.txt \
	    --override requirements-overrides.txt \
	    --custom-compile-command 'make lock' \
	    --output-file requirements-tracking.txt $(ARGS) requirements-tracking.in

# Asks OSV's database (api.osv.dev) of each locked version; resolves and installs nothing.
audit: ## known vulnerabilities of the locked versions [ARGS for pip-audit]
	@$(FIND_PYTHON); tools=$$(mktemp -d); trap 'rm -rf "$$tools"' EXIT; \
	"$$python" -m venv "$$tools" && "$$tools/bin/python" -m pip install --quiet $(AUDIT) && \
	"$$tools/bin/pip-audit" --requirement requirements.txt --require-hashes --disable-pip \
	    --vulnerability-service osv --progress-spinner off $(ARGS) 2>"$$tools/said"; \
	status=$$?; if grep -q Traceback "$$tools/said"; then \
	    echo "pip-audit got no answer: $$(tail -n 1 "$$tools/said" | cut -c 1-160)" >&2; \
	else cat "$$tools/said" >&2; fi; exit $$status

# --no-deps because pip's own resolver refuses TFF's pins; the lock is complete without it.
# A few packages come as source. They are built with the lock's setuptools, not the newest: old pips
# read the first variable, pip 25.3 and newer the second.
$(INSTALLED): requirements.txt
	@if cmp -s requirements.txt $@; then touch $@; exit; fi; $(FIND_PYTHON); \
	echo "Installing the locked packages into $(VENV) with $$python:" \
	    "3 GB on disk, a few minutes, once."; \
	"$$python" -m venv --clear $(VENV) && \
	sed -nE 's/^((setuptools|wheel)==[^ ]*).*/\1/p' requirements.txt >$(VENV)/build.txt && \
	PIP_CONSTRAINT=$(VENV)/build.txt PIP_BUILD_CONSTRAINT=$(VENV)/build.txt \
	    $(PY) -m pip install --quiet --disable-pip-version-check --use-pep517 \
	    --no-deps --require-hashes -r requirements.txt && \
	cp requirements.txt $@

# Sets $$python, or ends in one sentence. A candidate has to run: version managers leave commands
# on the PATH that only say that they are not installed.
define FIND_PYTHON
case "$$(uname -s) $$(uname -m)" in "Linux x86_64") ;; *) \
    echo "TensorFlow Federated exists for Linux on x86-64 only: use WSL 2 or a" \
        "linux/amd64 container here." >&2; exit 1;; \
esac; \
python=; found=; \
for name in $(or $(PYTHON),python3.11 python3.10 python3.9 python3 python); do \
    problem=$$("$$name" -c "$$PROBE" 2>/dev/null) || continue; \
    if [ -z "$$problem" ]; then python=$$name; break; fi; \
    found="$${found:+$$found; }$$name $$problem"; \
done; \
if [ -z "$$python" ]; then \
    echo "No suitable Python ($${found:-none that runs}): TensorFlow Federated needs CPython 3.9," \
        "3.10 or 3.11 with venv; 'uv python install 3.11', pyenv, conda or (on Ubuntu) the" \
        "deadsnakes packages install one, and PYTHON=/path/to/python selects it." >&2; exit 1; \
fi
endef

# Prints what is wrong with the Python that runs it; Python 2 has to understand it, too.
define PROBE
import platform, sys
name, version = platform.python_implementation(), "%d.%d" % sys.version_info[:2]
libc = platform.libc_ver()
if name != "CPython" or version not in ("3.9", "3.10", "3.11"):
    print("is %s %s" % (name, version))
elif libc[0] != "glibc" or [int(n) for n in libc[1].split(".")[:2]] < [2, 31]:
    print("runs on %s, not glibc 2.31 or newer" % " ".join(libc))
else:
    try:
        import ensurepip, venv
    except ImportError:
        print("has no ensurepip, which 'apt install python%s-venv' adds on Debian" % version)
endef
export PROBE
