"""The root that survives test runs, and the root of one run, which is made of it.

Compiling llama.cpp takes minutes, so the shared root keeps it. No test writes below its ``bins``, ``models`` and
``vendor``: a run has a root of its own with a copy of the programs, one of the temporary directories of pytest.

``python -m tests.shared_root`` prepares the shared root; ``scripts/test.sh`` does so before the tests.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from llama_runner import Runner
from llama_runner.core.artifact_record import STATE_FILE, TREE, InvalidRecord, parse_state
from llama_runner.llama_cpp.pinned_source import load_pin
from llama_runner.store import layout
from llama_runner.store.digest_cache import hash_tree

REPOSITORY = Path(__file__).parents[1]
Files = dict[Path, tuple[int, int, int]]
"""Size, time of change and inode of files, by path."""


class DamagedBuild(Exception):
    """A build in the shared root is not what was made."""


def shared_root() -> Path:
    """Return the root that survives test runs."""
    chosen = os.environ.get("LLAMA_RUNNER_TEST_ROOT")
    return Path(chosen) if chosen else user_cache_path("llama_runner", appauthor=False) / "tests"


def prepare(root: Path) -> Path:
    """Prepare the demo model in a root with the real pipeline; return the directory of its programs."""
    words = [sys.executable, "-m", "llama_runner", "prepare", "--demo", "--json", "--root", str(root)]
    done = subprocess.run(words, check=False, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0, "llama.cpp could not be built; see above"
    return Path(json.loads(done.stdout)["server"]).parent


def prepare_shared(root: Path, checkout: Path = REPOSITORY) -> Path:
    """Prepare the shared root; return the directory of its programs. Raises ``DamagedBuild``.

    Nothing is compiled if the root in the checkout has the same build.
    """
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / "tests.lock"):
        check_builds(root)
        take_build(root, checkout)
        return prepare(root)


def root_of_the_run(base: Path) -> Path:
    """Return the root of a run, in a directory that the workers of pytest-xdist share; the first of them makes it."""
    root = base / "built"
    with FileLock(base / "built.lock"):
        if not (root / "ready").exists():
            shutil.rmtree(root, ignore_errors=True)
            build = prepare_shared(shared_root())
            shutil.copytree(build, root.joinpath(*build.parts[-3:]), symlinks=True)
            _link_vendor(shared_root() / "vendor", root / "vendor")
            prepare(root)  # the stamps in the record become those of the copy
            (root / "ready").touch()
    return root


def programs_of(root: Path) -> Path:
    """Return the directory of the programs that the demo model takes in a root."""
    return Runner(root).plan(demo=True).spec.binary.parent


def link_builds(root: Path, target: Path) -> None:
    """Give a root the builds of another as hard links: what one of them adds or replaces, the other does not have."""
    shutil.copytree(root / "bins", target / "bins", symlinks=True, copy_function=os.link)


def check_builds(root: Path) -> None:
    """Raise ``DamagedBuild`` for a build that is not what its record says."""
    for build in sorted(root.glob("bins/*/*")):
        if not _is_as_recorded(build):
            text = f"{build} was changed after it was made\nhint: rm -r '{build}'; the next run makes it again"
            raise DamagedBuild(text)


def files_of(directory: Path) -> Files:
    """Return what tells a file that was written, made or replaced from one that was not."""
    found: Files = {}
    for entry in os.scandir(directory):
        if entry.is_dir(follow_symlinks=False):
            found |= files_of(Path(entry))
        state = entry.stat(follow_symlinks=False)
        is_file = not entry.is_dir(follow_symlinks=False)
        found[Path(entry)] = (state.st_size, state.st_mtime_ns, state.st_ino) if is_file else (0, 0, 0)
    return found


def take_build(root: Path, checkout: Path) -> Path | None:
    """Copy the build that a root lacks from the root in a checkout, where ``scripts/run_server.sh`` made it.

    The source of llama.cpp comes with it, as tests read that. Returns the copy; None if there is nothing to take.
    """
    if not (checkout / "bins").is_dir() or programs_of(root).exists():
        return None
    build, pin = programs_of(checkout), load_pin(layout.pin_file())
    wanted = root.joinpath(*build.parts[-3:])
    theirs, ours, tree = checkout / "vendor", root / "vendor", f"llama.cpp-b{pin.build}"
    made = (build / STATE_FILE, theirs / STATE_FILE, theirs / tree / STATE_FILE, theirs / pin.filename)
    if wanted.exists() or not all(path.exists() for path in made) or not _is_as_recorded(build):
        return None
    if not (ours / tree).exists():
        _copy(theirs / pin.filename, ours / pin.filename)
        _copy(theirs / tree, ours / tree)
        if not (ours / STATE_FILE).exists():
            _copy(theirs / STATE_FILE, ours / STATE_FILE)
    _copy(build, wanted)
    return wanted


def _is_as_recorded(build: Path) -> bool:
    """Return whether the files of a build have the digest in its record. The pipeline makes anew what has no record."""
    try:
        record = parse_state((build / STATE_FILE).read_bytes()).records.get(TREE)
    except (OSError, InvalidRecord):
        return True
    return record is None or hash_tree(build)[0] == record.digest


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a directory. What has the final name is complete."""
    part = target.with_name(f".part-{target.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(source, part, symlinks=True)
    else:
        shutil.copy2(source, part)
    part.replace(target)


def _link_vendor(vendor: Path, target: Path) -> None:
    """Give a root the sources of llama.cpp, and the environment of its converter as a link."""
    for path in vendor.iterdir() if vendor.exists() else ():
        if path.name.startswith("converter-"):
            target.mkdir(exist_ok=True)
            (target / path.name).symlink_to(path)
        elif path.is_dir():
            shutil.copytree(path, target / path.name, symlinks=True, copy_function=_link)
        else:
            target.mkdir(exist_ok=True)
            _link(path, target / path.name)


def _link(source: str | Path, target: str | Path) -> None:
    """Make a hard link, or a copy on another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


if __name__ == "__main__":
    try:
        programs = prepare_shared(shared_root())
    except DamagedBuild as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(f"programs  {programs}\n")
