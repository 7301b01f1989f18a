#!/usr/bin/env bash
# Lint and type-check: all of it, or what is named: check, format, mypy, shellcheck. Used by test.sh, pre-commit and nox.

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
        mypy) "$python" -m mypy ;;
        shellcheck) "$venv/bin/shellcheck" --external-sources scripts/*.sh .ci/run ;;
        *) fail "there is no check called $what" "there are check, format, mypy and shellcheck" ;;
    esac
done
