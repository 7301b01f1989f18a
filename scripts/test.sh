#!/usr/bin/env bash
# Set up everything, lint, type-check, and run every test, with the real build and real serving.
# Arguments go to pytest, which has a process for each core: scripts/test.sh -k laws; scripts/test.sh -n 0 --pdb
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

echo "== lint and types"
scripts/lint.sh

echo "== llama.cpp and the demo model, in $LLAMA_RUNNER_TEST_ROOT"
"$python" -m tests.shared_root

echo "== the official converter, to compare with"
tree=$(find "$LLAMA_RUNNER_TEST_ROOT/vendor" -maxdepth 1 -type d -name 'llama.cpp-b*' | sort | tail -n 1)
if [[ -n $tree ]] && reference=$("$python" scripts/reference_env.py "$LLAMA_RUNNER_TEST_ROOT"); then
    export LLAMA_RUNNER_REFERENCE_PYTHON=$reference LLAMA_RUNNER_REFERENCE_TREE=$tree
else
    echo "not available: the recorded digests of its output are compared instead"
fi

echo "== tests"
"$python" -m pytest --numprocesses auto --dist worksteal "$@"
