#!/usr/bin/env bash
# Lint and type-check, the package for Windows and macOS too: all of it, or what is named: check, format, mypy, shellcheck.
# Used by test.sh, pre-commit and nox.

set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
set_up test
cd "$repository"

if (($# == 0)); then
    set -- check format mypy shellcheck
fi
for what in "$@"; do
    case $what in
        check) "$python" -m ruff check ;;
        format) "$python" -m ruff format --check ;;
        mypy)
            checks=()
            for system in win32 darwin; do
                "$python" -m mypy --platform "$system" --cache-dir "${MYPY_CACHE_DIR:-.mypy_cache}/$system" llama_runner &
                checks+=($!)
            done
            "$python" -m mypy
            for check in "${checks[@]}"; do
                wait "$check"
            done
            ;;
        shellcheck) "$venv/bin/shellcheck" --external-sources scripts/*.sh .ci/run ;;
        *) fail "there is no check called $what" "there are check, format, mypy and shellcheck" ;;
    esac
done
