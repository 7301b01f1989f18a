"""What a generated container runs works as its user, without a capability, on a read-only root file system."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from llama_runner.generate.workload import PORT, ROOT, UID
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


def can_be_done() -> bool:
    """Return whether this user may make namespaces, and another one may run this Python."""
    if not all(map(shutil.which, ("unshare", "setpriv", "ip"))):
        return False
    words = ["unshare", "--mount", "--net", *shlex.split(SETPRIV), sys.executable, "-c", "import llama_runner"]
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not can_be_done(), reason="this user may not make namespaces")
def test_the_command_and_the_health_check_work_on_a_read_only_root(make: Make, binaries: Path, tmp_path: Path) -> None:
    environment = dict(
        re.findall(r"^(?:ENV| +) ?([A-Z_]+)=(\S+)", make("dockerfile").files["Dockerfile"], re.MULTILINE)
    )
    assert environment["LLAMA_RUNNER_ROOT"] == ROOT
    store, temporary, opt = (tmp_path / name for name in ("store", "tmp", "llama.cpp"))
    for directory in (store, temporary, opt):
        directory.mkdir()
        os.chown(directory, UID, UID)
    for parent in (tmp_path, *list(tmp_path.parents)[:2]):
        parent.chmod(0o755)
    service = yaml.safe_load(make("compose", "demo").files["compose.yaml"])["services"]["demo"]
    words = [word.replace("$$", "$") for word in service["command"]]
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
            "PROGRAMS": str(programs(binaries)),
            "LLAMA_SERVER_BINS_DIR": str(opt),
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stop      Ctrl-C" in done.stdout, done.stdout + done.stderr
    assert "warning" not in done.stderr, done.stderr
