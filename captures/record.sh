#!/usr/bin/env bash
# Records the captures of this directory anew, as root: captures/record.sh [NAME...]
#
# Everything happens in labs of their own. /proc/kallsyms is covered while recording: trace-cmd
# would store 1 MB of kernel symbols in every file, which no analysis of packets needs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

if [ "${COVERED:-}" != yes ]; then
    empty=$(mktemp)
    trap 'rm -f "$empty"' EXIT
    COVERED=yes unshare --mount sh -c 'mount --bind "$0" /proc/kallsyms && exec "$@"' \
        "$empty" "$0" "$@"
    exit
fi

maceproc=${MACEPROC:-$here/../.venv/bin/maceproc}
lab=captures-$$
beside_pids=()
trap 'for pid in "${beside_pids[@]}"; do kill "$pid" 2>/dev/null || true; done; "$maceproc" lab down --name "$lab" >/dev/null' EXIT

netns() { echo "--net=/run/netns/$lab-$1"; }
inside() { nsenter "$(netns "$1")" -- "${@:2}"; }
up() { "$maceproc" lab up --name "$lab" --containers "${1:-1}" >/dev/null; }
down() { "$maceproc" lab down --name "$lab" >/dev/null; }
beside() { # a program that runs beside the recording
    nsenter "$(netns "$1")" -- "${@:2}" >/dev/null 2>&1 & # not through a function: $! is its pid
    beside_pids+=($!)
}
quiet() { # ends what runs beside
    for pid in "${beside_pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    beside_pids=()
}

largest_kb=400 # more: somebody else's traffic is in it

record() { # NAME OPTIONS... -- COMMAND...: again while somebody else works beside it
    local name=$1
    for _ in {1..30}; do
        while ls /sys/kernel/tracing/instances | grep -q .; do sleep 1; done
        ${from:+inside "$from"} "$maceproc" record --force -o "$here/$name.dat" "${@:2}"
        grep -q 'by somebody else' "$here/$name.dat.json" && continue
        (($(stat -c %s "$here/$name.dat") > largest_kb * 1024)) || return 0
    done
    echo "$name: somebody else uses this machine all the time" >&2
    return 1
}

idle() {
    up
    record idle --lab "$lab" --rounds 5 -- ping -i 0.02 -c 40 192.0.2.2
    down
}

every_event() { # all of net:*, for looking at packets
    up
    record every_event --lab "$lab" --no-baseline --events full -- ping -i 0.05 -c 10 192.0.2.2
    down
}

in_flight() { # a narrow wire: six pings are sent at once and wait in the outer device's queue
    up
    inside host tc qdisc add dev eth0 root tbf rate 400kbit burst 1k latency 500ms
    record in_flight --lab "$lab" --rounds 3 -- ping -l 6 -i 0.01 -c 36 -s 400 192.0.2.2
    down
}

loaded() { # another container on the bridge sends 4 Mbit/s and pings every 10 ms
    up 2
    beside remote iperf3 -s
    sleep 0.5
    beside container2 ping -q -i 0.01 192.0.2.2
    beside container2 iperf3 -c 192.0.2.2 -b 4M -t 600
    sleep 1
    record loaded --lab "$lab" --rounds 3 -- ping -i 0.02 -c 30 192.0.2.2
    quiet
    down
}

native() { # from the host: nothing to correct, the wire RTT is still measured
    up
    from="host" record native --host --rounds 3 -- ping -i 0.02 -c 40 192.0.2.2
    down
}

for name in "${@:-idle every_event in_flight loaded native}"; do
    for one in $name; do
        echo "== $one"
        "$one"
    done
done
