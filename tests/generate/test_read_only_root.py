"""What a generated container runs works as its user, without a capability, on a read-only root file system."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from llama_runner.config.config import Config
from llama_runner.generate.container import PORT, ROOT, UID
from tests.documentation import programs
from tests.generate.conftest import Make

SETPRIV = f"setpriv --reuid {UID} --regid {UID} --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs"
SCRIPT = """\
mount --make-rprivate /
mount --bind "$STORE" "$STORE"
mount --bind "$PROGRAMS" "$LLAMA_SERVER_BINS_DIR"
mount -t tmpfs tmpfs "$TMPDIR"
chmod 1777 "$TMPDIR"
mount -o remount,bind,ro /
ip link set lo up
{as_user} {serve} & server=$!
until {as_user} {check} 2>/dev/null; do
    kill -0 "$server"
done
kill "$server"
wait "$server"
"""
"""Has the network of nobody else, so that the port in the container is free."""

needs_namespaces = pytest.mark.skipif(
    not all(map(shutil.which, ("unshare", "setpriv", "ip")))
    or subprocess.run(
        ["unshare", "--mount", "--net", *shlex.split(SETPRIV), sys.executable, "-c", "import llama_runner"],
        check=False,
        capture_output=True,
    ).returncode
    != 0,
    reason="this user may not make namespaces, or another one may not run this Python",
)


def run(service: dict[str, Any], image: str, build: Path, tmp_path: Path, words: list[str]) -> str:
    """Run a service of a Compose file until it is healthy, stop it, and return what it printed."""
    environment = dict(re.findall(r"^(?:ENV| +) ?([A-Z_]+)=(\S+)", image, re.MULTILINE))
    assert environment["LLAMA_RUNNER_ROOT"] == service["environment"]["LLAMA_RUNNER_ROOT"] == ROOT
    store, temporary, opt = (tmp_path / name for name in ("store", "tmp", "llama.cpp"))
    for directory in (store, temporary, opt):
        directory.mkdir()
        os.chown(directory, UID, UID)
    for parent in (tmp_path, *list(tmp_path.parents)[:-2]):
        parent.chmod(0o755)
    check = service["healthcheck"]["test"][1:]
    assert f":{PORT}/health" in check[-1]
    script = SCRIPT.format(
        as_user=SETPRIV, serve=shlex.join(["llama-runner", *words]), check=shlex.join([sys.executable, *check[1:]])
    )
    done = subprocess.run(
        ["unshare", "--mount", "--net", "bash", "-eu", "-c", script],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=store,
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(store),
            "TMPDIR": str(temporary),
            "STORE": str(store),
            "PYTHONDONTWRITEBYTECODE": environment["PYTHONDONTWRITEBYTECODE"],
            "LLAMA_RUNNER_ROOT": str(store),
            "PROGRAMS": str(build),
            "LLAMA_SERVER_BINS_DIR": str(opt),
            "LLAMA_RUNNER_NO_CHECK": "1",
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stderr, done.stderr
    return done.stdout


@needs_namespaces
def test_the_command_and_the_health_check_work_on_a_read_only_root(make: Make, binaries: Path, tmp_path: Path) -> None:
    service = yaml.safe_load(make("compose", "demo").files["compose.yaml"])["services"]["demo"]
    words = [word.replace("$$", "$") for word in service["command"]]
    said = run(service, make("dockerfile").files["Dockerfile"], programs(binaries), tmp_path, words)
    assert "stop      Ctrl-C" in said


@needs_namespaces
def test_the_gateway_works_on_a_read_only_root(make: Make, binaries: Path, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    there = tmp_path / "etc"
    there.mkdir()
    path = there / "llama-runner.toml"
    path.write_text(
        '[models.one]\nsource = "demo"\napi_key_file = "none"\n[models.two]\nsource = "demo"\nquantization = "q8_0"\n'
    )
    path.chmod(0o644)
    document = yaml.safe_load(make("compose", of=Config.load(path), per_model=False).files["compose.yaml"])
    [service], [text] = document["services"].values(), document["configs"].values()
    overlay = there / "container.toml"
    overlay.write_text(text["content"].replace("/etc/llama-runner/", f"{there}/"))
    words = [word.replace("/etc/llama-gateway/llama-runner.toml", str(overlay)) for word in service["command"]]
    said = run(service, make("dockerfile").files["Dockerfile"], programs(binaries), tmp_path, words)
    assert f"ready     http://0.0.0.0:{PORT}" in said
    assert "models    one, two" in said
