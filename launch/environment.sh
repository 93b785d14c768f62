# Sourced by the scripts beside it: stands in the checkout's root with a virtual environment that holds what
# setup.py asks for at the versions of constraints.txt. PR2_VENV names another place than .venv, PR2_PYTHON the
# interpreter to make it with. An environment that already holds just this is used as it is; nothing is ever removed.

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit 1
venv=${PR2_VENV:-.venv}

find_python() {
    local candidate
    for candidate in "$venv/bin/python" ${PR2_PYTHON:+"$PR2_PYTHON"} python3.11 python3 python3.12 python3.13; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "launch: error: no Python 3.11, 3.12 or 3.13 found: install python3.11 or name one with PR2_PYTHON" >&2
    return 1
}

# What the environment depends on: the pins, the packages asked for, the interpreter, and where the checkout lies.
wanted_state() {
    "$1" -c '
import hashlib, pathlib, sys
parts = [pathlib.Path(name).read_bytes() for name in ("launch/constraints.txt", "setup.py")]
print(hashlib.sha256(b"\0".join([*parts, sys.version.encode(), str(pathlib.Path.cwd()).encode()])).hexdigest())'
}

prepare_environment() {
    local python state stamp log
    python=$(find_python) || return 2
    state=$(wanted_state "$python") || return 2
    stamp=$venv/.pr2-installed
    log=$venv/install.log
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$state" ]; then
        return
    fi
    rm -f "$stamp"
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        echo "launch: making the virtual environment $venv with $("$python" --version)" >&2
        if ! "$python" -m venv "$venv" >/dev/null; then
            echo "launch: error: $python cannot make a virtual environment in $venv: is python3-venv installed?" >&2
            return 2
        fi
    fi
    echo "launch: installing, about a minute and 1.2 GB (log: $log)" >&2
    if ! "$venv/bin/python" -m pip install --disable-pip-version-check --no-input \
        -c launch/constraints.txt -e '.[test]' >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        echo "launch: error: the installation failed, the whole log is in $log" >&2
        return 2
    fi
    echo "$state" >"$stamp"
}

# The config that `pr2 run` or `pr2 train` will take from these arguments, every field of it, for the log of a job.
print_config() {
    local argument value_follows='' chosen=()
    for argument in "$@"; do
        case "$value_follows$argument" in
            --config | --workdir)
                chosen+=("$argument")
                value_follows=yes
                continue
                ;;
            yes* | --config=* | --config.* | --workdir=*) chosen+=("$argument") ;;
        esac
        value_follows=''
    done
    "$venv/bin/pr2" config "${chosen[@]}" >&2
}

prepare_environment || exit $?
