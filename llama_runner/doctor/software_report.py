"""Report on compilers and other build tools, versions, and settings."""

from __future__ import annotations

import os
import platform
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.core.errors import LlamaRunnerError
from llama_runner.core.url_redaction import public_url
from llama_runner.doctor.machine_probes import Document, Machine, try_probe
from llama_runner.llama_cpp.backend_build_options import BACKENDS, missing_requirements
from llama_runner.llama_cpp.choose_backend import choose_backend
from llama_runner.llama_cpp.compiler_cache import PROGRAMS
from llama_runner.llama_cpp.pinned_source import load_pin
from llama_runner.llama_cpp.toolchain import NoCompiler, find_toolchain, tool_path
from llama_runner.store import layout
from llama_runner.system.files import LARGEST_JSON, read_bounded
from llama_runner.system.network_settings import is_offline
from llama_runner.system.secret_redaction import is_secret
from llama_runner.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable

PACKAGES = (
    *("huggingface_hub", "gguf", "numpy", "click", "safetensors", "httpx2", "filelock", "psutil", "platformdirs"),
    *("cmake", "ninja", "pip"),
)
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_HUB = ("HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN_PATH", "HF_HUB_DISABLE_IMPLICIT_TOKEN")
_BUILDING = ("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "CPATH", "LIBRARY_PATH", "LD_LIBRARY_PATH", "CUDAARCHS")
_DEVICES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES")


def toolchains(machine: Machine) -> Document:
    """Return the build tools, and for each backend what is missing and the command that installs it."""
    return {
        **_compilers(machine),
        "cmake": try_probe(lambda: _packaged("cmake")),
        "ninja": try_probe(lambda: _packaged("ninja")),
        "git": try_probe(lambda: _version(machine, ("git",))),
        "compiler_cache": try_probe(lambda: _version(machine, PROGRAMS)),
        "nvcc": try_probe(lambda: _nvcc(machine)),
        "glslc": try_probe(lambda: _version(machine, ("glslc",))),
        "backends": {name: try_probe(partial(_backend, machine, name)) for name in _supported_backends(machine)},
        "best": try_probe(lambda: _best(machine)),
    }


def _supported_backends(machine: Machine) -> list[str]:
    return [name for name, backend in BACKENDS.items() if machine.platform.partition("-")[0] in backend.systems]


def _compilers(machine: Machine) -> Document:
    def find() -> Document:
        try:
            found = find_toolchain(machine.environment)
        except NoCompiler as error:
            return {"c": None, "cxx": None, "install": error.hint, "lacking": str(error)}
        return {
            role: {"path": str(each.path), "version": each.identity}
            for role, each in (("c", found.c), ("cxx", found.cxx))
        }

    return {"compiler": try_probe(find)}


def _packaged(package: str) -> Document:
    from importlib.metadata import version  # noqa: PLC0415 - slow

    return {"path": str(tool_path(package)), "version": version(package)}


def _version(machine: Machine, names: Iterable[str]) -> Document | None:
    """Return path and version of the first installed program of these; None without any."""
    for name in names:
        if path := machine.program(name):
            lines = machine.ask(path, "--version").splitlines()
            return {"path": str(path), "version": next((line.strip() for line in lines if line.strip()), "")}
    return None


def _nvcc(machine: Machine) -> Document | None:
    """Return nvcc; ``refuses`` is its error with the installed C++ compiler, None if it works."""
    path = machine.program("nvcc")
    if path is None:
        return None
    lines = [line for line in machine.ask(path, "--version").splitlines() if "release" in line]
    found: Document = {"path": str(path), "version": lines[0].strip() if lines else "", "refuses": None}

    def compile_nothing() -> None:
        try:
            cxx = find_toolchain(machine.environment).cxx.path
        except LlamaRunnerError:
            return  # reported elsewhere
        patient = machine.replace(timeout=4 * machine.timeout)
        patient.ask(path, "-ccbin", cxx, "-x", "cu", "-c", os.devnull, "-o", os.devnull)

    refusal = try_probe(compile_nothing)
    return {**found, "refuses": refusal and refusal["unknown"]}


def _backend(machine: Machine, name: str) -> Document:
    lacking = missing_requirements(name, machine.environment, machine.system / "usr")
    return {"missing": lacking, "install": BACKENDS[name].install or None if lacking else None}


def _best(machine: Machine) -> Document:
    chosen = choose_backend(machine.platform, machine.environment, system=machine.system)
    return {"name": chosen.name, "why": chosen.why}


def versions() -> Document:
    """Return the versions of llama_runner, Python, the packages and the pinned llama.cpp."""
    return {
        "llama_runner": __version__,
        "python": platform.python_version(),
        "packages": {name: try_probe(lambda name=name: _package(name)) for name in PACKAGES},  # type: ignore[misc]
        "pin": try_probe(_pin),
    }


def _package(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - slow

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _pin() -> Document:
    pin = load_pin(layout.pin_file())
    return {"build": pin.build, "commit": pin.commit, "package": f"{pin.package} {pin.version}"}


def settings(machine: Machine) -> Document:
    """Return the environment variables that have an effect; for secrets only that they are set."""
    environment = machine.environment
    shown = [name for name in environment if name.upper() in _PROXIES or name.startswith(("LLAMA_", "GGML_"))]
    shown += [name for name in (*_HUB, *_BUILDING, *_DEVICES, "TMPDIR") if name in environment and name not in shown]
    values = {name: "set" if is_secret(name) and name != "HF_TOKEN_PATH" else environment[name] for name in shown}
    # a proxy may be written without a scheme, and Hiding would not see its password
    values |= {name: public_url(value) for name, value in values.items() if name.upper() in _PROXIES}
    return {
        "variables": dict(sorted(values.items())),
        "hub": try_probe(lambda: _hub(machine)),
        "pip_index": try_probe(lambda: "set" if _has_index(machine) else "not set"),
    }


def _hub(machine: Machine) -> Document:
    """Return the endpoint of the Hub and the origin of the token, not the token itself."""
    from llama_runner.sources.hub.endpoint_and_token import find_access  # noqa: PLC0415 - not for --help

    notices: list[str] = []
    found = find_access(machine.environment, token_file=None, notice=lambda _, text: notices.append(text))
    token = found.origin if found.token is not None else None
    return {
        "endpoint": found.endpoint,
        "token": token,
        "offline": is_offline(machine.environment),
        "notices": notices,
    }


def hub_tokens(machine: Machine) -> list[str]:
    """Return the token for the Hub, if any, so that it can be redacted."""
    from llama_runner.sources.hub.endpoint_and_token import find_access  # noqa: PLC0415 - not for --help

    found = try_probe(lambda: find_access(machine.environment, token_file=None, notice=lambda *_: None).token)
    return [found] if isinstance(found, str) else []


def _has_index(machine: Machine) -> bool:
    environment = machine.environment
    if any(environment.get(name) for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS")):
        return True
    home = Path(environment.get("HOME") or Path.home())
    config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    files = [config / "pip/pip.conf", home / ".pip/pip.conf", machine.system / "etc/pip.conf"]
    files += [Path(environment[name]) for name in ("PIP_CONFIG_FILE",) if environment.get(name)]
    files += [machine.system / "etc/xdg/pip/pip.conf"]
    texts = (read_bounded(file, LARGEST_JSON).decode("utf-8", "replace") for file in files if file.is_file())
    return any(word in text for text in texts for word in ("index-url", "index_url", "find-links"))
