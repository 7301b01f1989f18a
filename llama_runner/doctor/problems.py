"""Derives problems, each with a hint, and the verdict from the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.sizes import size_text
from llama_runner.doctor.machine_probes import Document, Machine, is_unknown, try_probe
from llama_runner.llama_cpp.backend_build_options import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOM = 4 << 30
"""Free bytes below which there may be too little space for a build or a small model."""
_MEMORY = 1 << 30


def problems(found: Document, machine: Machine) -> list[Document]:
    """Return all problems as ``{"what", "hint", "blocks"}``, blocking ones first."""
    listed: list[Document] = []
    for judge in (_of_tools, _of_gpus, _of_disk, _of_memory, _of_binaries, _of_versions, _of_settings):
        judged = try_probe(lambda judge=judge: list(judge(found, machine)))  # type: ignore[misc]
        listed += [_problem(f"a judgement failed: {judged['unknown']}")] if isinstance(judged, dict) else judged
    return sorted(listed, key=lambda problem: not problem["blocks"])


def _problem(what: str, hint: str | None = None, *, blocks: bool = False) -> Document:
    return {"what": what, "hint": hint, "blocks": blocks}


def usable_builds(found: Document) -> list[str]:
    """Return the names of the installed builds that are for this machine and intact."""
    listed = found["binaries"] if isinstance(found["binaries"], list) else []
    here = found["system"].get("platform")
    return [each["name"] for each in listed if not each["problem"] and each["platform"] == here]


def _part(found: Any, *names: str) -> Any:  # noqa: ANN401 - a part of a document
    """Return a part of the document; None if it, or a part that contains it, is unknown."""
    for name in names:
        if not isinstance(found, dict) or is_unknown(found):
            return None
        found = found.get(name)
    return None if is_unknown(found) else found


def _of_tools(found: Document, _: Machine) -> Iterator[Document]:
    blocks = not usable_builds(found)
    tools = found["toolchains"]
    compiler = tools.get("compiler", {})
    if is_unknown(compiler):
        yield _problem(f"the compiler cannot be used: {compiler['unknown']}", blocks=blocks)
    elif "lacking" in compiler:
        yield _problem(compiler["lacking"], compiler["install"], blocks=blocks)
    for name in ("cmake", "ninja"):
        if is_unknown(tools.get(name)):
            yield _problem(
                f"{name} cannot be used: {tools[name]['unknown']}", f"python -m pip install {name}", blocks=blocks
            )
    if refusal := _part(tools, "nvcc", "refuses"):
        yield _problem(f"nvcc does not work with the C++ compiler: {refusal}", "set CC and CXX to older compilers")


def _of_gpus(found: Document, machine: Machine) -> Iterator[Document]:
    gpus = found["gpus"]
    for name, why in (_part(gpus, "unknown_of") or {}).items():
        yield _problem(f"GPUs cannot be looked at ({name}): {why}")
    vendors = {each["vendor"] for each in _part(gpus, "devices") or []}
    lists = _part(found["toolchains"], "backends") or {}
    for vendor, backend in (("NVIDIA", "cuda"), ("AMD", "hip")):
        lacking = _part(lists, backend, "missing")
        if vendor in vendors and lacking:
            what = f"there is an {vendor} GPU, but {' and '.join(lacking)} to build for it with {backend} is not"
            yield _problem(what, BACKENDS[backend].install)
    if vendors and not machine.platform.startswith("macos") and not vendors & {"NVIDIA", "AMD"}:
        best = _part(found["toolchains"], "best") or {}
        if best.get("name") == "cpu" and "but" in best.get("why", ""):
            yield _problem(best["why"], BACKENDS["vulkan"].install)


def _of_disk(found: Document, _: Machine) -> Iterator[Document]:
    for name, hint in (("root", "choose another --root (LLAMA_RUNNER_ROOT)"), ("temporary", "set TMPDIR")):
        room = _part(found["disk"], name)
        if room is None:
            continue
        if not room["writable"]:
            yield _problem(f"{room['path']} cannot be written to", f"make it writable or {hint}", blocks=name == "root")
        if room["free"] < (_ROOM if name == "root" else _ROOM // 16):
            yield _problem(f"only {size_text(room['free'])} free in {room['path']}", f"free some space or {hint}")


def _of_memory(found: Document, _: Machine) -> Iterator[Document]:
    available = _part(found["memory"], "available")
    if available is not None and available < _MEMORY:
        yield _problem(f"only {size_text(available)} of memory available", "end other programs, or raise the limit")


def _of_binaries(found: Document, _: Machine) -> Iterator[Document]:
    for each in found["binaries"] if isinstance(found["binaries"], list) else []:
        if each["problem"] and each["platform"] == found["system"].get("platform"):
            yield _problem(f"{each['name']}: {each['problem']}", f"llama-runner bins remove {each['name']}")


def _of_versions(found: Document, _: Machine) -> Iterator[Document]:
    packages = _part(found["versions"], "packages") or {}
    for name, version in packages.items():
        if version is None:
            yield _problem(f"the Python package {name} is not installed", f"python -m pip install {name}", blocks=True)
    pin = found["versions"].get("pin")
    if is_unknown(pin):
        yield _problem(pin["unknown"], "restore it from the repository", blocks=not usable_builds(found))


def _of_settings(found: Document, _: Machine) -> Iterator[Document]:
    hub = found["settings"].get("hub")
    if is_unknown(hub):
        yield _problem(f"nothing can be had from the Hub: {hub['unknown']}")
    for notice in _part(hub, "notices") or []:
        yield _problem(notice)


def verdict(listed: list[Document], found: Document) -> str:
    """Return the last line: whether models can be served on this machine, and with which programs."""
    blocking = [problem for problem in listed if problem["blocks"]]
    if blocking:
        return f"something stands in the way: {blocking[0]['what']}"
    here = usable_builds(found)
    best = _part(found["toolchains"], "best", "name") or "cpu"
    able = f"llama.cpp is here already ({here[0]})" if here else f"llama.cpp can be built here for {best}"
    if not listed:
        return f"all is well: {able}"
    return f"models can be served: {able}; {len(listed)} {'thing' if len(listed) == 1 else 'things'} could be better"
