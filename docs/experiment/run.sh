#!/bin/sh
# Make this page again: as root, on a quiet machine, from the repository's directory, after
# `make setup`. Two runs of 4 minutes each; interrupted, it goes on where it ended.
set -eu
page=docs/experiment
for seed in 1 2; do
    .venv/bin/maceproc experiment --lab --awake --traffic iperf3:20M \
        --tracers minimal,net,mace,full --rounds 12 --block-rounds 6 --seed $seed \
        -o build/experiment-$seed -- ping -i 0.02 -c 15 >/dev/null
done
.venv/bin/maceproc experiment report build/experiment-1 -o $page >/dev/null
.venv/bin/maceproc experiment agree build/experiment-1 build/experiment-2 | tee $page/agreement.md
rm -f $page/results.json $page/pings.parquet # large, and in build/experiment-1
