"""``doctor``: reports hardware, software and problems of this machine, and tests the pipeline."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.escape_control_characters import say
from llama_runner.core.sizes import size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from llama_runner.doctor.self_test import SelfTestResult

_Row = tuple[str, str]


@click.command()
@shared.store
@shared.option("--check", is_flag=True, help="Try to compile, convert, quantize and serve, too.")
def doctor(**given: Any) -> None:
    """Report what this machine has and what it lacks.

    The report has no secrets, and no network is used: it can be shared. With --check the exit status is that of the
    first thing that fails.
    """
    status = diagnose(given["root"], as_json=given["as_json"], check=given["check"])
    if status:
        raise SystemExit(status)


def diagnose(root: str | None, *, as_json: bool, check: bool = False) -> int:
    """Print the diagnosis and return the exit status."""
    from llama_runner.api import Runner  # noqa: PLC0415 - not for --help

    runner = Runner(root)
    document = runner.doctor().to_json()
    if not as_json:
        say(*_text(document))
    tried = list(_check(runner.self_test(), quiet=as_json)) if check else []
    if as_json:
        click.echo(json.dumps(document | ({"check": [each.to_json() for each in tried]} if check else {})))
    else:
        failed = [each.name for each in tried if each.ok is False]
        say("", f"{' and '.join(failed)} failed" if failed else _said(document["verdict"]))
    return next((each.code for each in tried if each.code), 0)


def _check(trials: Iterator[SelfTestResult], *, quiet: bool) -> Iterator[SelfTestResult]:
    if not quiet:
        say("", "tried")
    for tried in trials:
        yield tried
        if not quiet:
            word = {True: "ok", False: "failed", None: "not tried"}[tried.ok]
            after = f"   {tried.seconds:.1f} s" if tried.ok is not None else ""
            first, *more = tried.said.split("\n")
            say(_line(tried.name, f"{word}{after}   {first}"), *(_line("", line) for line in more))
            if tried.hint:
                say(_line("", tried.hint))


def _is_unknown(found: object) -> bool:
    return isinstance(found, dict) and set(found) == {"unknown"}


def _line(name: str, text: str, width: int = 8) -> str:
    return f"  {name:<{width}}   {text}".rstrip()


def _said(found: object) -> str:
    """Return a value for people."""
    if _is_unknown(found):
        return f"unknown: {found['unknown']}"  # type: ignore[index]
    if isinstance(found, list):
        return " ".join(map(str, found)) or "none"
    return "none" if found is None else str(found)


def _size(found: object) -> str:
    return size_text(found) if isinstance(found, int) else _said(found)


def _text(document: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the report, problems first."""
    yield "what stands in the way" if document["problems"] else "nothing stands in the way"
    for problem in document["problems"]:
        yield f"  {'! ' if problem['blocks'] else '- '}{problem['what']}"
        if problem["hint"]:
            yield f"      {problem['hint']}"
    for name, rows in _SECTIONS.items():
        yield ""
        yield name
        part = document[name]
        listed = [("unknown", part["unknown"])] if _is_unknown(part) else list(rows(part))
        width = max((len(label) for label, _ in listed), default=0)
        for label, text in listed:
            yield _line(label, text, width)


def _system(part: dict[str, Any]) -> Iterator[_Row]:
    yield "system", f"{_said(part['distribution'])}, {part['os']} {_said(part['kernel'])}, {part['platform']}"
    if part["container"] or part["wsl"]:
        yield "inside of", f"{_said(part['container'])}{', WSL' if part['wsl'] else ''}"


def _cpu(part: dict[str, Any]) -> Iterator[_Row]:
    yield "model", _said(part["model"])
    yield "features", _said(part["features"])
    quota = "" if part["quota"] is None else f", quota {_said(part['quota'])}"
    allowed = "" if part["affinity"] is None else f", {part['affinity']} allowed"
    yield "cores", f"{_said(part['physical_cores_usable'])} usable, {part['logical']} logical{allowed}{quota}"


def _memory(part: dict[str, Any]) -> Iterator[_Row]:
    yield "memory", f"{_size(part['total'])}, {_size(part['available'])} available"
    if part["cgroup_limit"] is not None:
        yield "limit", _size(part["cgroup_limit"])


def _gpus(part: dict[str, Any]) -> Iterator[_Row]:
    for each in part["devices"]:
        memory = "" if each["memory"] is None else f", {size_text(each['memory'])}"
        used = "" if each["memory_used"] is None else f", {size_text(each['memory_used'])} used"
        driver = f", driver {each['driver']}" if each["driver"] else ""
        yield each["vendor"], f"{each['name']}{memory}{used}{driver}" + (f", {each['kind']}" if each["kind"] else "")
    for name, why in part["unknown_of"].items():
        yield name, f"unknown: {why}"
    if not part["devices"] and not part["unknown_of"]:
        yield "devices", "none"
    if part["cuda_supported"] is not None:
        yield "CUDA up to", _said(part["cuda_supported"])
    if _is_unknown(part["vulkan"]) or part["vulkan"] is None:
        yield "Vulkan", _said(part["vulkan"]) if part["vulkan"] else "vulkaninfo is not installed"
        return
    for each in part["vulkan"]:
        yield "Vulkan", f"{each['name']}, {each['type']}, {each['driver']}"


def _toolchains(part: dict[str, Any]) -> Iterator[_Row]:
    compiler = part["compiler"]
    for role, label in (("c", "C"), ("cxx", "C++")):
        yield label, _tool(compiler if _is_unknown(compiler) else compiler[role])
    for name in ("cmake", "ninja", "git", "compiler_cache", "nvcc", "glslc"):
        yield name.replace("_", " "), _tool(part[name])
    for name, backend in part["backends"].items():
        lacking = _said(backend) if _is_unknown(backend) else " and ".join(backend["missing"])
        yield f"for {name}", lacking if _is_unknown(backend) else f"missing: {lacking}" if lacking else "all is here"
        if lacking and backend.get("install"):
            yield "", backend["install"]
    best = part["best"]
    yield "best here", _said(best) if _is_unknown(best) else f"{best['name']}: {best['why']}"


def _tool(found: dict[str, Any] | None) -> str:
    if found is None or _is_unknown(found):
        return _said(found)
    return f"{found['version']}   {found['path']}"


def _disk(part: dict[str, Any]) -> Iterator[_Row]:
    for name, room in part.items():
        if _is_unknown(room):
            yield name, _said(room)
        else:
            where = f"{size_text(room['free'])} of {size_text(room['total'])} free"
            yield name, f"{where}   {room['path']}{'' if room['writable'] else ', not writable'}"


def _store(part: dict[str, Any]) -> Iterator[_Row]:
    for name, held in part["parts"].items():
        yield name, _said(held) if _is_unknown(held) else f"{size_text(held['bytes'])} in {held['files']} files"


def _binaries(part: list[dict[str, Any]]) -> Iterator[_Row]:
    for each in part:
        about = [f"build {each['build'] or '?'}", each["backend"], f"proven: {each['proven'] or 'no'}"]
        about += [word for word in ("in use" if each["in_use"] else "", each["problem"] or "") if word]
        yield each["name"], f"{', '.join(about)}"
    if not part:
        yield "none", "llama-runner bins build makes some"


def _versions(part: dict[str, Any]) -> Iterator[_Row]:
    yield "llama_runner", f"{part['llama_runner']}, Python {part['python']}"
    yield "packages", ", ".join(f"{name} {_said(version)}" for name, version in part["packages"].items())
    pin = part["pin"]
    yield "llama.cpp", _said(pin) if _is_unknown(pin) else f"build {pin['build']} in {pin['package']}"


def _settings(part: dict[str, Any]) -> Iterator[_Row]:
    hub = part["hub"]
    if _is_unknown(hub):
        yield "hub", _said(hub)
    else:
        token = f"token from {hub['token']}" if hub["token"] else "no token"
        yield "hub", f"{hub['endpoint']}, {token}{', offline' if hub['offline'] else ''}"
    yield "pip's index", _said(part["pip_index"])
    yield from part["variables"].items()


_SECTIONS: Mapping[str, Callable[[Any], Iterator[_Row]]] = {
    "system": _system,
    "cpu": _cpu,
    "memory": _memory,
    "gpus": _gpus,
    "toolchains": _toolchains,
    "disk": _disk,
    "store": _store,
    "binaries": _binaries,
    "versions": _versions,
    "settings": _settings,
}
