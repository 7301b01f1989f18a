#!/usr/bin/env bash
# Set up everything, lint, type-check, and run every test, with the real build and real serving.
# Arguments go to pytest, which has two processes for each core: scripts/test.sh -k laws; scripts/test.sh -n 0 --pdb
# Types are checked beside the tests, and without arguments so is what runs under Wine; what they say is shown after them.
#
# What takes long is kept in ~/.cache/llama_runner (or LLAMA_RUNNER_TEST_ROOT): llama.cpp as our own pipeline built
# it, or as scripts/run_server.sh has built it in this checkout, and the environment of the official converter, if a CPU
# build of torch can be had.

set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
set_up test
cd "$repository"

unset PYTHONDONTWRITEBYTECODE # else each of the thousands of commands compiles the package
export LLAMA_RUNNER_TEST_ROOT=${LLAMA_RUNNER_TEST_ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/llama_runner/tests}

export MYPY_CACHE_DIR=$LLAMA_RUNNER_TEST_ROOT/mypy # a new checkout does not begin with nothing

beside=$(mktemp -d)
jobs=()
# shellcheck disable=SC2329 # called by the trap
end_jobs() {
    local file
    for file in "$beside"/*.pid; do
        if [[ -e $file ]]; then
            kill -- "-$(<"$file")" 2>/dev/null || true
        fi
    done
    rm -rf "$beside"
}
trap end_jobs EXIT

# Start a command beside the tests, in a process group of its own.
start_job() {
    local name=$1
    shift
    set -m
    "$@" >"$beside/$name" 2>&1 </dev/null &
    set +m
    echo $! >"$beside/$name.pid"
    jobs+=("$name")
}

# Wait for a command that was started beside the tests, and show its last line, or all if it failed.
finish_job() {
    local pid
    pid=$(<"$beside/$1.pid")
    echo "== $1"
    if wait "$pid"; then
        tail -n 1 "$beside/$1"
    else
        status=1
        cat "$beside/$1"
    fi
    rm "$beside/$1.pid"
}

echo "== lint"
scripts/lint.sh check format shellcheck
start_job types scripts/lint.sh mypy

echo "== llama.cpp and the demo model, in $LLAMA_RUNNER_TEST_ROOT"
"$python" -m tests.shared_root

echo "== the official converter, to compare with"
tree=$(find "$LLAMA_RUNNER_TEST_ROOT/vendor" -maxdepth 1 -type d -name 'llama.cpp-b*' | sort | tail -n 1)
if [[ -n $tree ]] && reference=$("$python" scripts/reference_env.py "$LLAMA_RUNNER_TEST_ROOT"); then
    export LLAMA_RUNNER_REFERENCE_PYTHON=$reference LLAMA_RUNNER_REFERENCE_TREE=$tree
else
    echo "not available: the recorded digests of its output are compared instead"
fi

if (($# == 0)); then
    if command -v wine >/dev/null && [[ $(uname -m) == x86_64 ]]; then
        start_job "Windows' Python and programs, under Wine" scripts/test_windows.sh
    else
        echo "== Windows: skipped, as there is no Wine on x86-64"
    fi
fi

echo "== tests"
status=0
"$python" -m pytest --numprocesses auto --dist worksteal "$@" || status=$?
if ((status == 2)); then # Ctrl-C
    exit "$status"
fi
for job in "${jobs[@]}"; do
    finish_job "$job"
done
exit "$status"
