#!/usr/bin/env bash
# Runs `pr2 run` or `pr2 train` in 1 to N processes on this host, all on one work directory:
#   bash launch/train.sh --processes 2 run --config kuaisar --workdir work/kuaisar --input KuaiSAR_v2
# The GPUs are shared out evenly; without any, JAX_NUM_CPU_DEVICES is the number of CPU devices of each process.
# TERM, and INT as TERM, go to all of them; a second INT kills them. Where one fails the others are ended, and its exit
# status is this script's.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

processes=1
if [ "${1:-}" = --processes ]; then
    processes=${2:-}
    shift $(($# > 1 ? 2 : 1))
fi
if ! [[ $processes =~ ^[1-9][0-9]*$ ]] || [ $# = 0 ]; then
    echo "launch: error: expected [--processes N] run|train and what pr2 takes, N a whole number above 0" >&2
    exit 2
fi
case $1 in
run | train) ;;
*)
    echo "launch: error: $1: several processes are for run and train; give it to pr2 itself" >&2
    exit 2
    ;;
esac
print_config "$@"
if [ "$processes" = 1 ]; then
    exec "$venv/bin/pr2" "$@"
fi

gpus=()
if [ "${JAX_PLATFORMS:-}" != cpu ]; then
    listed=${CUDA_VISIBLE_DEVICES-$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | paste -sd, - || true)}
    IFS=, read -ra gpus <<<"$listed"
fi
if [ $((${#gpus[@]} % processes)) != 0 ]; then
    echo "launch: error: ${#gpus[@]} GPUs do not share out over $processes processes; take a divisor of ${#gpus[@]}," \
        "or name the GPUs in CUDA_VISIBLE_DEVICES" >&2
    exit 2
fi
share=$((${#gpus[@]} / processes))
port=$("$venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

children=()
signalled=''
ender=''
next=TERM # bash starts background processes deaf to INT
forward() {
    signalled=yes
    kill -s "$1" "${children[@]}" 2>/dev/null || true
}
trap 'forward TERM' TERM
trap 'forward "$next"; next=KILL' INT

for ((i = 0; i < processes; i++)); do
    if [ "$share" -gt 0 ]; then
        export CUDA_VISIBLE_DEVICES
        CUDA_VISIBLE_DEVICES=$(IFS=,; echo "${gpus[*]:i*share:share}")
    fi
    "$venv/bin/pr2" "$@" --coordinator "127.0.0.1:$port" --processes "$processes" --process "$i" &
    children+=($!)
done

# A process that waits for one that has gone hears of it late, and one inside JAX may not heed TERM.
end_all() {
    kill -s TERM "${children[@]}" 2>/dev/null || true
    (sleep "${PR2_GRACE_S:-30}" && kill -s KILL "${children[@]}") >/dev/null 2>&1 &
    ender=$!
    disown "$ender"
}

status=0
left=$processes
while [ "$left" -gt 0 ]; do
    signalled=''
    code=0
    wait -n || code=$?
    if [ -n "$signalled" ]; then # it was the signal that ended the waiting, not a process
        continue
    fi
    left=$((left - 1))
    if [ "$code" != 0 ] && [ "$status" = 0 ]; then
        status=$code
        if [ "$left" -gt 0 ]; then
            end_all
        fi
    fi
done
if [ -n "$ender" ]; then
    kill "$ender" 2>/dev/null || true
fi
exit "$status"
