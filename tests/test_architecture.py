"""Dependencies point downward only, and a warm start loads nothing heavy."""

from __future__ import annotations

import ast
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from itertools import accumulate
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.ladder import LADDER, PACKAGE

ALONE = frozenset({"api", "api_preparation", "api_management", "status_report", "pytest_plugin", "pytest_servers"})

HEAVY = {
    "shutil", "numpy", "gguf", "huggingface_hub", "httpx", "httpx2",
    "click", "rich", "tqdm", "sqlite3", "safetensors", "filelock", "yaml", "tomlkit",
    "packaging", "platformdirs", "psutil", "cpuinfo", "cmake", "ninja", "importlib.metadata", "concurrent.futures",
    "asyncio", "email", "llama_runner.convert.errors", "llama_runner.convert.prepare_checkpoint",
    "llama_runner.status_report", "llama_runner.client", "llama_runner.remote", "llama_runner.gateway", "aiohttp",
    "fsspec", "s3fs", "blake3", "cyclonedx", "packageurl", "_hashlib", "ssl", "tomllib",
}  # fmt: skip


def rung(part: str) -> int:
    """Return the rung of a package, or of a module directly below ``llama_runner``."""
    return next(index for index, parts in enumerate(LADDER) if part in parts)


def modules() -> dict[str, Path]:
    """Return every module of the package by its name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    """Return every node of the syntax tree of a module: a dozen tests read all modules."""
    return list(ast.walk(ast.parse(path.read_text())))


@pytest.fixture(scope="module", autouse=True)
def _syntax_trees() -> Iterator[None]:
    yield
    nodes_of.cache_clear()


def imports(path: Path, known: Collection[str]) -> set[str]:
    """Return every module of ours that a file imports, wherever in it, for type checkers too."""
    found: set[str] = set()
    for node in nodes_of(path):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parents = accumulate(name.split("."), "{}.{}".format)
            found |= set([parent for parent in parents if parent in known][-1:])
    return found - {"llama_runner"}


def test_each_package_imports_only_from_those_below_it() -> None:
    wrong = []
    known = modules()
    for module, path in known.items():
        if module == "llama_runner":  # the public face names what it exports
            continue
        own = module.split(".")[1]
        for name in imports(path, known):
            other = name.split(".")[1]
            allowed = other == own or rung(other) < rung(own)
            neighbours = {own, other} <= ALONE and rung(other) == rung(own)
            wrong += [] if allowed or neighbours else [f"{module} imports {name}"]
    assert not wrong


def test_no_imports_go_in_a_circle() -> None:
    """Imports for type checkers count: two files that know each other are one thing."""
    known = modules()
    graph = {module: imports(path, known) - {module} for module, path in known.items() if module != "llama_runner"}

    def reached(start: str) -> set[str]:
        """Return the modules that a module needs, and those that they need."""
        found: set[str] = set()
        pending = [start]
        while pending:
            new = graph.get(pending.pop(), set()) - found
            found |= new
            pending += new
        return found

    assert not [module for module in graph if module in reached(module)]


def test_the_core_is_pure() -> None:
    allowed = {"__future__", "collections", "dataclasses", "hashlib", "json", "math", "operator", "re", "typing"}
    allowed |= {"pathlib", "typing_extensions", "inspect", "difflib", "itertools", "llama_runner", "_sha2", "_sha256"}
    for path in (PACKAGE / "core").glob("*.py"):
        for node in nodes_of(path):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in allowed, f"{path.name} imports {name}"
            assert not (isinstance(node, ast.Name) and node.id in ("open", "print", "input")), path.name


STARTING = {
    "subprocess": {"Popen", "run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"},
    "os": {"system", "popen", "startfile", "fork", "forkpty", "posix_spawn", "posix_spawnp"},
    "asyncio": {"create_subprocess_exec", "create_subprocess_shell"},
    "pty": {"spawn", "fork"},
}
"""Functions of the standard library that start a process. ``os.exec…`` and ``os.spawn…`` come to them."""


def starts(nodes: Iterable[ast.AST]) -> list[str]:
    """Return the calls and imports in a module that start a process without our own function for it."""
    found = []
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            module, name = getattr(node.func.value, "id", ""), node.func.attr
            if name in STARTING.get(module, ()) or (module == "os" and name.startswith(("exec", "spawn"))):
                found.append(f"{module}.{name}")
        elif isinstance(node, ast.ImportFrom) and node.module in STARTING:
            found += [f"from {node.module} import {a.name}" for a in node.names if a.name in STARTING[node.module]]
        elif isinstance(node, ast.ImportFrom) and node.module == "concurrent.futures":
            found += [a.name for a in node.names if a.name == "ProcessPoolExecutor"]
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            found += [name for name in names if name.partition(".")[0] == "multiprocessing"]
    return found


def test_11_01_one_module_starts_processes() -> None:
    """A child that is started elsewhere inherits the working directory, which may be that of a hostile model."""
    found = {path: starts(nodes_of(path)) for path in PACKAGE.rglob("*.py")}
    wrong = {str(path.relative_to(PACKAGE)): calls for path, calls in found.items() if calls}
    assert wrong == {"system/processes.py": ["subprocess.Popen"]}


def test_19_01_one_package_knows_what_each_operating_system_has() -> None:
    asks = re.compile(r"\b(sys\.platform|os\.name)\b")
    found = [
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.parent.name != "system"
        for line in path.read_text(encoding="utf-8").splitlines()
        if asks.search(line)
    ]
    assert not found


def test_files_stay_small_enough_to_be_one_thing() -> None:
    large = {path.name: count for path in PACKAGE.rglob("*.py") if (count := len(path.read_text().splitlines())) > 400}
    assert not large


WARM = """
import json, socket, sys
def refuse(*arguments, **options): raise AssertionError("a socket was connected")
socket.socket.connect = refuse
from llama_runner import Runner
prepared = Runner(sys.argv[1]).prepare(demo=True)
assert prepared.ran == (), prepared.ran
from llama_runner.cli import entry_point, plan_model, serve_model, text_output
json.dump(sorted(sys.modules), sys.stdout)
"""


READERS = {
    *("system", "doctor", "official_script_runner.py", "original_driver.py", "original_logits_driver.py"),
    *("trainer_program.py", "merger_program.py"),
    *(
        "system/gpu_memory.py",
        "serving/end_with_parent.py",
        "serving/server_registry.py",
        "serving/llama_server/memory_check.py",
        "serving/port_owner.py",
    ),
    *(
        "llama_cpp/gpu_detection.py",
        "llama_cpp/backend_build_options.py",
        "benchmark/history.py",
        "request/choose_binaries.py",
    ),
    *("steps/official_converter_environment.py", "steps/compile.py"),
}
"""What opens files itself: those of /proc, /sys and the system, and files that we wrote a moment before."""


def test_11_20_files_are_read_through_the_one_module_that_refuses_fifos_and_devices() -> None:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name in READERS or {*name.split("/")} & READERS:
            continue
        for node in nodes_of(path):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            modes = [a.value for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant)]
            writes = any(isinstance(mode, str) and set(mode) & set("wax") and len(mode) < 4 for mode in modes)
            inside = ast.unparse(node.func) in ("archive.open", "tarfile.open", "os.open", "webbrowser.open")
            if called in ("read_text", "read_bytes") or (called == "open" and not writes and not inside):
                wrong.append(f"{name}:{node.lineno}")
    assert not wrong


MOVING = {
    "request/find_original_of_gguf.py": "fetched files of an original, as one directory; a model's vocabulary",
    "remote/shared_store.py": "a file that was fetched part by part, into staging",
    "system/files.py": "replaces a file by its new content",
    "system/platforms.py": "tries again where Windows refuses it for a moment",
    "training/trainer_program.py": "a program of its own, which imports nothing of ours, replaces its checkpoint",
    "system/atomic_output.py": "a file that the user asked for",
    "store/artifacts.py": "publishes what was staged",
    "store/removal.py": "an artifact is moved away before it is deleted",
    "store/staging.py": "asks whether a rename is possible",
    "llama_cpp/build_archive.py": "an unpacked build becomes an artifact",
    "sources/hub/hf_cache.py": "a file of the user's cache becomes ours",
    "sources/hub/download.py": "what was received becomes a file, or is set aside",
    "serving/server_log.py": "a log is rotated",
    "sessions/state_store.py": "what llama-server saved becomes a state",
    "steps/download.py": "what was received becomes an artifact",
    "steps/download_archive.py": "the same",
    "steps/unpack_programs.py": "what was unpacked becomes an artifact",
}
"""What renames files and directories. Small files of ours are written by ``system/files.py`` alone."""
SYNCING = {"system/files.py", "system/atomic_output.py", "training/trainer_program.py"}


def test_12_04_small_files_of_ours_are_replaced_by_the_one_module_that_does_it_atomically() -> None:
    moving, syncing, wrong = set(), set(), []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        for node in nodes_of(path):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "rename_over":
                moving.add(name)
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            called, module = node.func.attr, getattr(node.func.value, "id", "")
            is_path = len(node.args) == 1 and not node.keywords and module != "dataclasses"
            if called in ("replace", "rename", "renames") and (is_path or module == "os"):
                moving.add(name)
            elif called == "fsync":
                syncing.add(name)
            elif ast.unparse(node.func) in ("json.dump", "tempfile.NamedTemporaryFile", "tempfile.mkstemp"):
                wrong.append(f"{name}:{node.lineno}")
    assert moving == MOVING.keys()
    assert syncing == SYNCING
    assert not wrong


PLACES = re.compile(r"(models|bins|vendor|logs)/|\.llama_runner\b(?!-)")
"""How a path below the root begins, as a text."""
NAMES = {
    *("models", "gguf", "safetensors", "bins", "vendor", "logs", ".llama_runner", "locks", "staging", "work", "pins"),
    *("stamps.sqlite", "descriptions", "servers", "profiles", "bench", "memory", "capabilities", "releases", "chosen"),
}
"""Parts of such paths, which nobody but the layout joins to a directory."""
OTHER_PATHS = {
    "library/find_foreign_models.py": "LM Studio's directory is called models",
    "library/ollama_store.py": "Ollama's too",
    "sources/hub/parse_model_name.py": "addresses of the Hub have /models/ too",
    "doctor/hardware_report.py": "/sys/bus/pci has files called vendor",
}


def test_12_04_paths_below_the_root_are_written_in_the_layout_only() -> None:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name == "store/layout.py" or name in OTHER_PATHS:
            continue
        prose = {id(node.value) for node in nodes_of(path) if isinstance(node, ast.Expr)}  # docstrings
        for node in nodes_of(path):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
                wrong += [f"{name}:{node.lineno}"] if PLACES.match(node.value) else []
            elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                joined = node.right.values[0] if isinstance(node.right, ast.JoinedStr) else node.right
                part = joined.value if isinstance(joined, ast.Constant) else ""
                wrong += [f"{name}:{node.lineno}"] if str(part).partition("/")[0] in NAMES else []
    assert not wrong


OF_CONFIG = {
    "convert/converter_corrections.py": "what a correction looks for in its text, on the warm path",
    "library/find_foreign_models.py": "whether a directory is a model of safetensors",
    "convert/model_directory.py": "the reader",
    "core/files_of_model_directory.py": "what conversion reads, as patterns",
    "convert/families/pooling.py": "config.json of a module of sentence-transformers",
    "sources/hub/adapters.py": "a file that gives metadata",
    "sources/hub/resolver.py": "the file in a repository",
    "sources/resolve_source.py": "whether there is one, beside the settings of an adapter",
}


def test_12_02_one_module_reads_config_json_and_the_others_get_what_it_says() -> None:
    named = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in nodes_of(path):
            if isinstance(node, ast.Constant) and node.value == "config.json":
                named.add(path.relative_to(PACKAGE).as_posix())
    assert named == OF_CONFIG.keys()


HTTP = {
    "system/http_client.py": {"httpx2"},
    "sources/hub/client.py": {"huggingface_hub.get_session"},
    "sources/hub/download.py": {"huggingface_hub.get_session"},
    "client/connection.py": {"httpx2"},
    "client/async_client.py": {"httpx2"},
    "client/sync_client.py": {"httpx2"},
    "serving/llama_server/readiness.py": {"http.client"},
    "system/http_failure.py": {"urllib.request"},
}
"""What speaks HTTP: to others; to the Hub, on its library's session; to servers, as a client and while one starts
(``http.client``, which loads faster). The last one asks which proxy the system has."""


def test_12_04_one_module_speaks_http_to_others_than_the_hub_and_servers() -> None:
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in nodes_of(path):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(f"{node.module}.{a.name}" for a in node.names)]
            http = {"httpx", "httpx2", "requests", "aiohttp", "urllib3", "http.client", "urllib.request"}
            speaks = {name for name in names if name in http or name.endswith(".get_session")}
            if speaks:
                found.setdefault(path.relative_to(PACKAGE).as_posix(), set()).update(speaks)
    of_the_gateway = {name: found.pop(name) for name in sorted(found) if name.startswith("gateway/")}
    assert all(speaks == {"aiohttp"} for speaks in of_the_gateway.values()), "the gateway serves with one library"
    assert found == HTTP


def test_a_warm_start_loads_nothing_heavy_and_needs_no_network(binaries: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WARM, str(binaries)], check=True, capture_output=True, text=True)
    loaded = set(json.loads(done.stdout))
    assert sorted(loaded & HEAVY) == []


def test_a_warm_start_compiles_no_annotations(binaries: Path) -> None:
    code = (  # namedtuples of the standard library compile a function, which does not load the compiler's tree
        "import sys\ncompiled = []\n"
        "sys.addaudithook(lambda name, args: compiled.append(args[0]) if name == 'compile' else None)\n"
        f"from llama_runner.cli.entry_point import main\nmain(['plan', '--demo', '--root', {str(binaries)!r}])\n"
        "sys.stderr.write(repr([each for each in compiled if not each.startswith(b'lambda _cls')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr == "[]"


def test_importing_the_package_loads_nothing_of_it() -> None:
    code = "import llama_runner, sys; print([m for m in sys.modules if m.startswith('llama_runner')])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "['llama_runner']"


def test_a_command_defines_no_options_of_other_commands_and_collects_no_garbage_of_imports() -> None:
    code = (
        "import gc, json, sys\nfrom llama_runner.cli.main import cli\n"
        "cli.get_command(None, 'run')\n"
        "from llama_runner.cli.runner_that_prints import runner_for\nrunner_for({'root': None})\n"
        "print(json.dumps([[m for m in sys.modules if m.endswith('_cmds')], gc.get_freeze_count() > 0]))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == [[], True]


def test_the_gateway_listens_before_it_loads_the_pipeline() -> None:
    code = "import json, sys\nimport llama_runner.gateway.main_process\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    heavy = HEAVY - {"llama_runner.gateway", "aiohttp"}
    heavy -= {"asyncio", "email", "concurrent.futures", "shutil", "_hashlib", "ssl"}  # those of aiohttp
    pipeline = {"llama_runner.api", "llama_runner.request.pipeline_graph", "llama_runner.request.results_of_graph"}
    assert sorted(set(json.loads(done.stdout)) & (heavy | pipeline)) == []


def test_importing_the_converter_is_cheap() -> None:
    code = "import llama_runner.convert, sys; print('numpy' in sys.modules or 'gguf' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_knows_the_commands(llama_runner: Command, shell: str) -> None:
    words = {"COMP_WORDS": "llama-runner pl", "COMP_CWORD": "pl" if shell == "fish" else "1"}
    answer = llama_runner(env={"_LLAMA_RUNNER_COMPLETE": f"{shell}_complete", **words})
    assert "plan" in answer.out


def test_a_warm_start_opens_no_model(binaries: Path) -> None:
    code = (
        "import sys\nopened = []\n"
        "sys.addaudithook(lambda name, args: opened.append(str(args[0])) if name == 'open' else None)\n"
        f"from llama_runner import Runner\nRunner({str(binaries)!r}).prepare(demo=True)\n"
        "print([name for name in opened if name.endswith(('.gguf', '.safetensors', '.whl'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_nothing_listens_elsewhere_than_on_loopback_unless_asked() -> None:
    from llama_runner import ServerOptions

    assert ServerOptions().host == "127.0.0.1"
    assert socket.inet_aton(ServerOptions().host)[0] == 127
    assert os.environ.get("LLAMA_ARG_HOST") is None


DISTRIBUTIONS = {
    "cpuinfo": "py-cpuinfo",
    "yaml": "pyyaml",
    "cyclonedx": "cyclonedx-python-lib",
    "packageurl": "packageurl-python",
    "opentelemetry": "opentelemetry-sdk",
}
"""Of modules that are not called as their distributions are."""
STARTED = ("tool_path", "python_module")
"""Functions whose argument names a package with a program in it."""


def third_party() -> set[str]:
    """Return the distributions that the package imports or starts."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        if path.name in (
            "official_script_runner.py",
            "original_logits_driver.py",
            "trainer_program.py",
            "merger_program.py",
        ):  # run in an environment of their own
            continue
        for node in nodes_of(path):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").partition(".")[0])
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in STARTED:
                found |= {each.value for each in node.args if isinstance(each, ast.Constant)}  # type: ignore[misc]
    # typing_extensions is for type checkers, pytest is there where its plugin runs
    others = {"llama_runner", "typing_extensions", "pytest", "tomllib", "_sha2", "_sha256", *sys.stdlib_module_names}
    return {DISTRIBUTIONS.get(name, name) for name in found - others}


def test_11_32_what_is_imported_is_declared_and_what_is_declared_is_used() -> None:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    declared = {re.match(r"[\w-]+", each)[0] for each in project["dependencies"]}  # type: ignore[index]
    extras = {re.split(r"[>=\[]", each)[0] for extra in project["optional-dependencies"].values() for each in extra}
    assert third_party() - extras == declared
    of_check = {"jinja2", "sentencepiece", "tokenizers"}
    others = {"aiohttp", "cryptography", "fsspec", "paramiko", "opentelemetry-sdk"}
    of_sbom = {"cyclonedx-python-lib", "packageurl-python"}
    assert third_party() & extras == of_check | of_sbom | others
