#!/bin/sh
# Make the pages beside this one again: as root, on a quiet machine, from the repository's directory,
# after `make setup`. About an hour; interrupted, it goes on where it ended.
set -eu
page=docs/experiment
ping="ping -i 0.02 -c 25"

# outside NAME FLOWS TRACERS ROUNDS SEED [--no-nat]: the remote is a program on the last CPU, the
# pings are on the first.
outside() {
    .venv/bin/maceproc lab up --name "$1" --remote program --containers 9 ${6:-}
    taskset -c 0 .venv/bin/maceproc experiment --lab "$1" --awake --traffic flood:0.01 \
        --flows "$2" --tracers "$3" --rounds "$4" --seed "$5" -o "build/$1" -- $ping >/dev/null
    .venv/bin/maceproc lab down --name "$1"
}
# inside NAME SEED: the remote is a namespace, with iperf3's servers.
inside() {
    .venv/bin/maceproc experiment --lab --awake --traffic iperf3:20M \
        --tracers minimal,net,mace,full --rounds 20 --seed "$2" -o "build/$1" -- $ping >/dev/null
}

outside outside-1 0,2,4,8 minimal,net 24 1
outside outside-2 0,2,4,8 minimal,net 24 2
outside without-nat 0,4 minimal 40 4 --no-nat
inside inside-1 1
inside inside-2 2

.venv/bin/maceproc experiment report build/outside-1 -o $page >/dev/null
rm -f $page/results.json $page/pings.parquet # large, and in build/outside-1
.venv/bin/maceproc experiment agree build/outside-1 build/outside-2 >$page/agreement.md
.venv/bin/maceproc experiment report build/without-nat >$page/without-nat.md
.venv/bin/maceproc experiment report build/inside-1 >$page/tracers.md
.venv/bin/maceproc experiment agree build/inside-1 build/inside-2 >$page/tracers-agreement.md
