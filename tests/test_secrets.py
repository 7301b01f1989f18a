"""No password, token or signature of a URL in an argument, a log, a record, an event or an error."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import which

import pytest

from tests.conftest import Command, Result
from tests.llama_cpp.tiny_llama import PATCH, git, write_tree

PASSWORD = "planted/pass+wörd"
QUOTED = "planted%2Fpass%2Bw%C3%B6rd"
TOKEN = "plantedtoken0123456789"
posix = pytest.mark.skipif(os.name != "posix", reason="the program is a shell script")


class _Server(BaseHTTPRequestHandler):
    """Serves git repositories below a directory, and one patch, to those who know the password."""

    directory: Path
    refused: list[str]
    patch_token = TOKEN

    def log_message(self, *_arguments: object) -> None:
        """Print nothing."""

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        expected = "Basic " + base64.b64encode(f"anna:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != expected:
            self.refused.append(self.path)
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path == "/changes.patch":
            is_known = f"token={self.patch_token}" in query and "id=7" in query
            body = PATCH.encode() if is_known else b""
            self.send_response(200 if is_known else 403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        else:
            self._git(path, query)

    do_GET = do_POST = _serve  # noqa: N815 - names of http.server

    def _git(self, path: str, query: str) -> None:
        env = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self.directory),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        done = subprocess.run(["git", "http-backend"], input=sent, env=env, check=True, capture_output=True)
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Give host and port of a server with ``tree.git`` and ``changes.patch`` behind a password."""
    tree = write_tree(tmp_path / "tree")
    git(tree, "init", "-q", "-b", "master")
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "all")
    (tmp_path / "served").mkdir()
    git(tree, "clone", "-q", "--bare", str(tree), str(tmp_path / "served/tree.git"))
    handler = type("Handler", (_Server,), {"directory": tmp_path / "served", "refused": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def observed(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """Return variables that put a git before the real one, and the file where it writes every command line it sees."""
    seen, directory, real = tmp_path / "argv", tmp_path / "path", which("git")
    directory.mkdir()
    program = directory / "git"
    program.write_text(f'#!/bin/sh\ntr "\\0" " " < /proc/$$/cmdline >> {seen}\nexec {real} "$@"\n')
    program.chmod(0o755)
    trace = {"GIT_TRACE": str(tmp_path / "argv-of-children"), "GIT_TRACE_SETUP": "0"}
    path = os.pathsep.join([str(directory), os.environ["PATH"]])
    return {"PATH": path, "HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": str(tmp_path / "home"), **trace}, seen


def assert_hidden(result: Result, *directories: Path) -> None:
    """Look for what was planted in all that was printed and in every file."""
    assert "planted" not in (result.out + result.err).lower(), result
    for directory in directories:
        for path in [directory, *directory.rglob("*")]:
            assert "planted" not in path.name
            if path.is_file() and not path.is_symlink():
                assert b"planted" not in path.read_bytes().lower(), path


@posix
def test_11_08_the_password_of_a_repository_is_in_no_argument_log_or_record(
    llama_runner: Command, server: str, tmp_path: Path, observed: tuple[dict[str, str], Path]
) -> None:
    env, seen = observed
    root = tmp_path / "root"
    for url, commit in (
        (f"http://anna:{QUOTED}@{server}/tree.git", "master"),
        (f"http://anna:{QUOTED}@{server}/none.git", "0" * 40),
        (f"http://anna:{QUOTED}wrong@{server}/tree.git", "master"),
    ):
        result = llama_runner("bins", "build", "--source", f"{url}@{commit}", "--root", root, env=env)
        assert result.code, "the tree is not llama.cpp's"
        assert_hidden(result, root)
    assert [path.name for path in (root / "vendor").iterdir()], "the tree was fetched"
    assert "http-backend" not in seen.read_text()
    assert f"http://{server}/tree.git" in seen.read_text()
    assert "planted" not in seen.read_text().lower()
    assert "planted" not in (tmp_path / "argv-of-children").read_text().lower()
    assert not list((tmp_path / "home").rglob("*credentials*"))


@posix
def test_11_08_a_credential_helper_of_the_user_is_neither_asked_nor_told_what_a_url_says(
    llama_runner: Command, server: str, tmp_path: Path, observed: tuple[dict[str, str], Path]
) -> None:
    env, _ = observed
    asked = tmp_path / "asked"
    (tmp_path / "config").write_text(f'[credential]\n\thelper = "!cat >> {asked}; true"\n')
    env = {**env, "GIT_CONFIG_GLOBAL": str(tmp_path / "config")}
    env |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.abbrev", "GIT_CONFIG_VALUE_0": "12"}
    source = f"http://anna:{QUOTED}@{server}/tree.git@master"
    result = llama_runner("bins", "build", "--source", source, "--root", tmp_path / "root", env=env)
    assert list((tmp_path / "root/vendor").iterdir()), result
    assert not asked.exists()


@posix
def test_11_08_a_user_name_alone_is_completed_by_the_credential_helper_of_the_user(
    llama_runner: Command, server: str, tmp_path: Path, observed: tuple[dict[str, str], Path]
) -> None:
    env, seen = observed
    helper = tmp_path / "helper"
    helper.write_text(f"#!/bin/sh\ntest $1 = get && grep -q ^username=anna && echo 'password={PASSWORD}'\n")
    helper.chmod(0o755)
    (tmp_path / "config").write_text(f"[credential]\n\thelper = {helper}\n")
    env = {**env, "GIT_CONFIG_GLOBAL": str(tmp_path / "config")}
    source = f"http://anna@{server}/tree.git@master"
    result = llama_runner("bins", "build", "--source", source, "--root", tmp_path / "root", env=env)
    assert list((tmp_path / "root/vendor").iterdir()), result
    assert "anna" not in seen.read_text()
    assert_hidden(result, tmp_path / "root")


@posix
def test_11_08_the_secrets_of_a_patch_are_in_no_error_log_or_record(
    llama_runner: Command, server: str, tmp_path: Path, observed: tuple[dict[str, str], Path]
) -> None:
    env, _ = observed
    root = tmp_path / "root"
    for query in (f"id=7&token={TOKEN}", f"token={TOKEN}&id=8"):
        patch = f"http://anna:{QUOTED}@{server}/changes.patch?{query}"
        result = llama_runner("bins", "build", "--source", tmp_path / "tree", "--patch", patch, "--root", root, env=env)
        assert result.code, "the tree is not llama.cpp's"
        assert_hidden(result, root)
    assert f"http://{server}/changes.patch?id=8" in result.err
    assert (root / "vendor/patches/.state.json").is_file(), "the first one was fetched"
    assert "id=7" in (root / "vendor/patches/.state.json").read_text()


def test_11_08_a_log_is_readable_by_its_owner_only(llama_runner: Command, server: str, tmp_path: Path) -> None:
    llama_runner("bins", "build", "--source", f"http://{server}/tree.git@{'0' * 40}", "--root", tmp_path / "root")
    logs = list((tmp_path / "root/logs").iterdir())
    assert logs
    assert {stat.S_IMODE(path.stat().st_mode) for path in logs} == {0o600}


def test_11_08_the_password_of_a_package_index_is_in_no_log_and_no_error(llama_runner: Command, tmp_path: Path) -> None:
    env = {
        "PIP_INDEX_URL": f"http://anna:{QUOTED}@127.0.0.1:1/simple",
        "PIP_EXTRA_INDEX_URL": f"http://{TOKEN}@127.0.0.1:1/simple http://a:{TOKEN}@127.0.0.1:1/b",
        "PIP_RETRIES": "0",
        "PIP_VERBOSE": "3",
        "HOME": str(tmp_path / "home"),
    }
    result = llama_runner("bins", "build", "--root", tmp_path / "root", env=env)
    assert result.code == 4, result
    assert "127.0.0.1" in next((tmp_path / "root/logs").iterdir()).read_text()
    assert_hidden(result, tmp_path / "root")
    assert_hidden(llama_runner("bins", "update", "--root", tmp_path / "root", env=env), tmp_path / "root")


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_11_08_the_password_of_a_proxy_without_a_scheme_is_hidden(
    llama_runner: Command, tmp_path: Path, variable: str
) -> None:
    env = {variable: f"anna:{QUOTED}@127.0.0.1:1"}
    result = llama_runner("doctor", "--root", tmp_path, env=env)
    assert result.code == 0, result
    assert "127.0.0.1:1" in result.out
    assert_hidden(result)
    assert_hidden(llama_runner("search", "words", env=env))
    sha256 = "0" * 64
    options = ("--binaries", "https://localhost.example/llama-b1-bin.zip", "--sha256", sha256, "--root", tmp_path)
    result = llama_runner("prepare", "--demo", *options, env=env)
    assert result.code == 4, result
    assert_hidden(result, tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--demo", "--source", "https://anna:planted@127.0.0.1:1/x"),
        ("run", "--demo", "--source", "https://anna:planted@127.0.0.1:1/x@"),
        ("run", "--demo", "--source", "https://anna:pla/planted@127.0.0.1:1/x@" + "0" * 40),
        ("run", "--demo", "--source", "https://127.0.0.1:1/x?token=planted@" + "0" * 40),
        ("run", "--demo", "--source", "https://planted@127.0.0.1:1/x@master"),
        ("run", "--demo", "--source", "ssh://git:planted@127.0.0.1:1/x@master"),
        ("run", "--demo", "--patch", "ftp://anna:planted@127.0.0.1/x.patch"),
        ("run", "--demo", "--patch", "https://anna:planted@127.0.0.1:1"),
        ("run", "--demo", "--imatrix", "https://anna:planted@127.0.0.1:1/x"),
        ("run", "--demo", "--binaries", "https://anna:planted@127.0.0.1:1/x.zip"),
        ("run", "--demo", "--binaries", "s3://anna:planted@127.0.0.1:1/x.zip"),
        ("run", "--demo", "--binaries", "https://127.0.0.1:1/x.zip?X-Amz-Signature=planted", "--sha256", "1" * 64),
        ("run", "--gguf-path", "https://anna:planted@127.0.0.1:1/x.gguf"),
        ("run", "--safetensors-dir", "https://anna:planted@127.0.0.1:1/x"),
        ("run", "https://anna:planted@127.0.0.1:1/x.gguf?token=planted"),
        ("inspect", "https://anna:planted@127.0.0.1:1/x.gguf"),
        ("bins", "import", "https://anna:planted@127.0.0.1:1/x.tar.gz"),
        ("bins", "install", "https://anna:planted@127.0.0.1:1/x.zip"),
        ("prepare", "--demo", "https://anna:planted@127.0.0.1:1/x", "https://anna:planted@127.0.0.1:1/y"),
        ("prepare", "--demo", "--port", "https://anna:planted@127.0.0.1:1/x"),
        ("https://anna:planted@127.0.0.1:1/x",),
    ],
)
def test_11_08_no_error_repeats_a_secret_of_a_url(
    llama_runner: Command, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    result = llama_runner(*arguments, "--root", tmp_path / "root", env={"GIT_SSH_COMMAND": "false"})
    assert result.code in {2, 3, 4}, result
    assert_hidden(result, tmp_path / "root")


@pytest.mark.parametrize("option", ["-hft", "--hf-token", "--api-key", "--api_key"])
def test_11_08_a_secret_after_the_dashes_is_refused_and_not_repeated(
    llama_runner: Command, tmp_path: Path, option: str
) -> None:
    for words in ((option, "planted"), (f"{option}=planted",)):
        result = llama_runner("plan", "--demo", "--root", tmp_path / "root", "--", *words)
        assert result.code == 2, result
        assert_hidden(result, tmp_path / "root")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HF_ENDPOINT", "https://anna:planted@[bad"),
        ("HF_ENDPOINT", "anna:planted@hub.example"),
        ("HF_ENDPOINT", "https://anna:plan/planted@hub.example"),
        ("HF_ENDPOINT", "https://hub.example/?token=planted"),
        ("LLAMA_RUNNER_RELEASES", "https://anna:planted@[bad"),
        ("LLAMA_RUNNER_RELEASES", "anna:planted@hub.example"),
        ("LLAMA_RUNNER_RELEASES", "https://hub.example/?token=planted"),
    ],
)
def test_11_08_no_error_repeats_a_secret_of_a_variable(
    llama_runner: Command, tmp_path: Path, variable: str, value: str
) -> None:
    words = ("run", "acme/model") if variable == "HF_ENDPOINT" else ("run", "--demo", "--binaries", "prebuilt")
    result = llama_runner(*words, "--root", tmp_path / "root", env={variable: value})
    assert result.code == 2, result
    assert_hidden(result, tmp_path / "root")
