# Two commands do everything on a fresh Debian or Ubuntu, as root:
#   make demo    set up, record a real ping in the built-in lab, analyze it
#   make test    set up, run every test against the running kernel

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DEMO   := build/demo

.PHONY: demo test test-newcomers test-image test-kernels bench-packages emulator virtme check docs man schemas notebooks bpf compiler setup develop packages tools engines browser clean
.DELETE_ON_ERROR:

demo: setup
	mkdir -p $(DEMO)
	$(BIN)/maceproc record --lab --rounds 32 --force -o $(DEMO)/trace.dat -- ping -i 0.01 -c 20
	$(BIN)/maceproc analyze $(DEMO)/trace.dat

test: develop tools compiler engines browser
	$(BIN)/pytest

# The first steps of README and Getting started, typed in a fresh Debian 12, Debian 13 and Ubuntu 24.04;
# minutes per system. SYSTEMS takes some of them: make test-newcomers SYSTEMS="debian-13 --readme"
test-newcomers: develop
	@$(call install,mmdebstrap=mmdebstrap util-linux=unshare)
	$(BIN)/python -m tests.newcomers $(SYSTEMS)

# The image of the Dockerfile is built, on a base that is made here, and recorded with; minutes.
test-image: develop tools engines
	@$(call install,mmdebstrap=mmdebstrap)
	$(BIN)/python -m tests.image

# Debian's kernels booted in qemu, which record in networks that this kernel may not have; minutes
# per kernel. BENCH takes options and scenarios: make test-kernels BENCH="--kernel 6.1 bond-vlan"
test-kernels: develop tools bench-packages
	$(BIN)/python -m tests.kernels $(BENCH)

check: develop
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, in build/site, from docs/ and what is made from the code; warnings are errors.
docs: develop
	mkdir -p build/docs
	find build/docs -name '*.md' -delete
	$(BIN)/python docs/made.py build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir build/site

# Manual pages, in build/man: man -l build/man/maceproc.1
man: develop
	$(BIN)/python docs/man.py build/man

# The JSON Schemas of what is printed as JSON, from the declared tables.
schemas: develop
	$(BIN)/python -m maceproc.reporting.json_schema

# The tracer's programs for the kernel; the object is kept beside its source, no target needs a
# compiler. A test makes it again and compares.
BPF := maceproc/recording/bpf/echoes.bpf
bpf: compiler
	clang -O2 -g -mcpu=v3 -target bpf -Wall -Werror -ffile-compilation-dir=. -c $(BPF).c -o $(BPF).o
	llvm-strip -g $(BPF).o

compiler:
	@$(call install,clang=clang llvm=llvm-strip)
	@test -e /usr/include/bpf/bpf_helpers.h || { $(call install,libbpf-dev=-); }

# Run the notebooks again, and keep what they print with them.
notebooks: develop
	$(BIN)/python -m tests.notebooks

# Installed editable: a change to the code needs no new set-up, a change to the project file does.
PROJECT := pyproject.toml maceproc/_buffers.h maceproc/tracedat/_native.c maceproc/following/_hops.c
setup: packages $(VENV)/.installed
$(VENV)/.installed: $(PROJECT)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[plot]'
	touch $@

develop: setup $(VENV)/.developed
$(VENV)/.developed: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[test,check]'
	touch $@

# Install the packages of which the command is missing: $(call install,PACKAGE=COMMAND ...)
define install
missing=""; \
for pair in $(1); do \
    command -v $${pair#*=} >/dev/null || missing="$$missing $${pair%%=*}"; \
done; \
if [ -n "$$missing" ]; then \
    echo "installing:$$missing"; \
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
fi
endef

# For the compiled part of the trace.dat reader; it is optional, and faster.
export HEADERS := import os, sys, sysconfig; \
    sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))
packages:
	@$(call install,trace-cmd=trace-cmd iputils-ping=ping iproute2=ip iptables=iptables \
	    util-linux=nsenter ethtool=ethtool gcc=cc libc6-dev=cc)
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { $(call install,python3-venv=-); }
	@$(PYTHON) -c "$$HEADERS" || { $(call install,python3-dev=-); }

# Debian asks this program whether a package may start its service; 101 means no.
POLICY := /usr/sbin/policy-rc.d

# What the tests alone run.
tools:
	@$(call install,tcpdump=tcpdump tshark=tshark jq=jq fping=fping busybox-static=busybox \
	    iperf3=iperf3)
	@{ $(call install,linux-perf=perf); } || echo "not installed: linux-perf"  # so named in Debian

# What the bench of kernels runs; no service is started, see `engines`.
bench-packages: emulator
	@if [ ! -e $(POLICY) ]; then \
	    trap 'rm -f $(POLICY)' EXIT; \
	    printf '#!/bin/sh\nexit 101\n' >$(POLICY); chmod +x $(POLICY); \
	fi; \
	$(call install,wireguard-tools=wg openvswitch-switch=ovs-vsctl clang=clang)

# What boots a kernel; its smoke needs no more.
emulator: virtme
	@$(call install,qemu-system-x86=qemu-system-x86_64 kmod=depmod zstd=zstd \
	    busybox-static=busybox)
virtme: develop
	@test -x $(BIN)/vng || $(BIN)/pip install --quiet --editable '.[kernels]'

# The report page is tested in a real browser.
browser:
	@command -v google-chrome >/dev/null || { $(call install,chromium=chromium fonts-dejavu-core=chromium); }

# Container engines: the tests start a daemon of their own, in a namespace. No service is started
# here: Debian asks policy-rc.d whether it may, and 101 means no. One that cannot be had is skipped.
engines:
	@if [ ! -e $(POLICY) ]; then \
	    trap 'rm -f $(POLICY)' EXIT; \
	    printf '#!/bin/sh\nexit 101\n' >$(POLICY); chmod +x $(POLICY); \
	fi; \
	for pair in docker.io=dockerd podman=podman slirp4netns=slirp4netns passt=pasta; do \
	    { $(call install,$$pair); } || echo "not installed: $${pair%%=*}"; \
	done; \
	command -v docker >/dev/null || { $(call install,docker-cli=docker); }  # apart, in Debian 13

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
