# Two commands do everything on a fresh Debian or Ubuntu, as root:
#   make demo    set up, record a real ping in the built-in lab, analyze it
#   make test    set up, run every test against the running kernel

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DEMO   := build/demo

.PHONY: demo test check setup packages clean
.DELETE_ON_ERROR:

demo: setup
	mkdir -p $(DEMO)
	$(BIN)/maceproc record --lab --awake --rounds 3 --force -o $(DEMO)/trace.dat -- ping -i 0.01 -c 200
	$(BIN)/maceproc analyze $(DEMO)/trace.dat

test: setup
	$(BIN)/pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: packages $(VENV)/.installed

# Installed editable: a change to the code needs no new set-up, a change to the project file does.
$(VENV)/.installed: pyproject.toml maceproc/tracedat/_native.c
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[test,check]'
	touch $@

# For the compiled part of the trace.dat reader; it is optional, and faster.
export HEADERS := import os, sys, sysconfig; \
    sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))

# Debian package = command it provides. Only what is missing is installed.
packages:
	@missing=""; \
	for pair in trace-cmd=trace-cmd iputils-ping=ping iproute2=ip tcpdump=tcpdump iperf3=iperf3 fping=fping busybox-static=busybox iptables=iptables util-linux=nsenter ethtool=ethtool gcc=cc; do \
	    command -v $${pair#*=} >/dev/null || missing="$$missing $${pair%%=*}"; \
	done; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing="$$missing python3-venv"; \
	$(PYTHON) -c "$$HEADERS" || missing="$$missing python3-dev"; \
	if [ -n "$$missing" ]; then \
	    echo "installing:$$missing"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing; \
	fi

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
