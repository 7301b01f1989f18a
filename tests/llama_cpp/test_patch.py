"""``--patch``: a file or a URL, applied to a copy, keyed by what it says."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from llama_runner.core.errors import DownloadError, SourceError, StepError, StoreError, ToolError
from llama_runner.core.step import Step
from llama_runner.llama_cpp.pinned_source import NumberedTree
from tests.llama_cpp.tiny_llama import PATCH, QUANTIZE_C, Bench, compile_step, write_tree
from tests.llama_cpp.trees import tree_from

SECOND = """
--- a/quantize.c
+++ b/quantize.c
@@ -1,2 +1,2 @@
 #include <stdio.h>
-int main(void) { puts("Q8_0"); return 1; }
+int main(void) { puts("Q8_0"); return 4; }
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tree")


def write(path: Path, text: str = PATCH) -> str:
    path.write_text(text)
    return str(path)


def apply(bench: Bench, tree: NumberedTree) -> Path:
    assert isinstance(tree.node, Step)
    return bench.store.path(bench.execute(tree.node).places[tree.node])


@pytest.fixture(params=["git", "patch"])
def program(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Leave only one of the two programs in ``PATH``."""
    name = str(request.param)
    (tmp_path / "path").mkdir()
    for each in (name, "setpriv"):
        for directory in os.environ["PATH"].split(os.pathsep):
            if Path(directory, each).exists() and not (tmp_path / "path" / each).exists():
                (tmp_path / "path" / each).symlink_to(Path(directory, each))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return name


def test_patches_are_applied_in_their_order_to_a_copy(bench: Bench, tree: Path, tmp_path: Path, program: str) -> None:
    patches = [write(tmp_path / "1.patch"), write(tmp_path / "2.patch", SECOND)]
    directory = apply(bench, tree_from(str(tree), patches=patches))
    assert (directory / "quantize.c").read_text() == QUANTIZE_C.replace("return 0", "return 4")
    assert (directory / "include/new.h").read_text() == "#define NEW\n"
    assert (tree / "quantize.c").read_text() == QUANTIZE_C, "the original stays as it is"
    assert directory.name.startswith("llama.cpp-b0-")
    with pytest.raises(StepError):
        apply(bench, tree_from(str(tree), patches=patches[::-1]))


def test_a_patch_may_be_for_lines_further_down(bench: Bench, tree: Path, tmp_path: Path, program: str) -> None:
    (tree / "quantize.c").write_text(f"\n\n\n{QUANTIZE_C}// after\n")
    lines = PATCH[: PATCH.index("diff --git a/include")].replace("@@ -1,2 +1,2 @@", "@@ -2,3 +2,3 @@")
    directory = apply(bench, tree_from(str(tree), patches=[write(tmp_path / "a.patch", f"{lines} // after\n")]))
    assert "return 1" in (directory / "quantize.c").read_text()
    assert not list(directory.rglob("*.orig"))


def test_a_patched_tree_is_built_beside_the_one_that_is_not(bench: Bench, tree: Path, tmp_path: Path) -> None:
    patch = write(tmp_path / "a.patch")
    bench.execute(compile_step(tree_from(str(tree)).node))
    bench.execute(compile_step(tree_from(str(tree), patches=[patch]).node))
    assert bench.ran() == ["compile", "patch", "compile"]
    assert len(list((bench.root / "bins/test").iterdir())) == 2


def test_a_patch_is_known_by_what_it_says(bench: Bench, tree: Path, tmp_path: Path) -> None:
    first = apply(bench, tree_from(str(tree), patches=[write(tmp_path / "a.patch")]))
    assert apply(bench, tree_from(str(tree), patches=[write(tmp_path / "another name")])) == first
    assert bench.ran() == ["patch"]
    other = PATCH.replace("return 1", "return 5")
    assert apply(bench, tree_from(str(tree), patches=[write(tmp_path / "a.patch", other)])) != first
    assert bench.ran() == ["patch"]


def test_a_store_inside_somebodys_repository(tmp_path: Path, tree: Path) -> None:
    """Git would look for the files at the top of that one, find none and call it a success."""
    (tmp_path / ".git").mkdir()
    for name in ("HEAD", "config", "objects/x", "refs/x"):
        (tmp_path / ".git" / name).parent.mkdir(exist_ok=True)
        (tmp_path / ".git" / name).write_text("ref: refs/heads/main\n" if name == "HEAD" else "")
    directory = apply(Bench(tmp_path / "root"), tree_from(str(tree), patches=[write(tmp_path / "a")]))
    assert (directory / "quantize.c").read_text() == QUANTIZE_C.replace("return 0", "return 1")


def test_a_patch_that_does_not_apply_names_file_and_hunk(
    bench: Bench, tree: Path, tmp_path: Path, program: str
) -> None:
    (tree / "quantize.c").write_text("int main(void) { return 9; }\n")
    with pytest.raises(StepError, match=r"does not apply to quantize\.c \(the hunk at line 1\)") as caught:
        apply(bench, tree_from(str(tree), patches=[write(tmp_path / "a.patch")]))
    assert (bench.root / str(caught.value).rpartition("full log: ")[2]).exists()
    assert not (bench.root / "vendor").exists(), "nothing half-written"
    assert bench.nothing_is_left()
    (tree / "quantize.c").unlink()
    with pytest.raises(StepError, match=r"does not apply to quantize\.c"):
        apply(bench, tree_from(str(tree), patches=[write(tmp_path / "a.patch")]))


@pytest.mark.parametrize("text", ["no patch at all\n", "", PATCH.replace("b/include", "b/../../include")])
def test_what_is_no_patch_is_refused(bench: Bench, tree: Path, tmp_path: Path, text: str, program: str) -> None:
    with pytest.raises(StepError):
        apply(bench, tree_from(str(tree), patches=[write(tmp_path / "a.patch", text)]))
    assert not (bench.root / "vendor").exists()


def test_a_patch_that_is_not_there(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        tree_from(str(tree), patches=[str(tmp_path / "nothing.patch")])


def test_without_a_program_that_applies_patches(
    bench: Bench, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="needs git or patch") as caught:
        apply(bench, tree_from(str(tree), patches=[write(tmp_path / "a.patch")]))
    assert caught.value.code == 5


@contextmanager
def serving(status: int, text: str) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            moved = self.path.startswith("/pull/")
            self.send_response(302 if moved else status)
            if moved:
                self.send_header("Location", "/raw/1.patch")
            self.send_header("Content-Length", str(0 if moved else len(text)))
            self.end_headers()
            self.wfile.write(b"" if moved else text.encode())

        def log_message(self, *_arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def test_a_patch_of_a_pull_request_is_fetched_once(bench: Bench, tree: Path, tmp_path: Path) -> None:
    with serving(200, PATCH) as (url, asked):
        patched = apply(bench, tree_from(str(tree), patches=[f"{url}/pull/1.patch"]))
        assert (patched / "quantize.c").read_text() == QUANTIZE_C.replace("return 0", "return 1")
        assert asked == ["/pull/1.patch", "/raw/1.patch"]
    assert apply(bench, tree_from(str(tree), patches=[f"{url}/pull/1.patch"])) == patched
    assert bench.ran() == ["fetch_patch", "patch"]
    assert apply(bench, tree_from(str(tree), patches=[write(tmp_path / "same")])) == patched, "wherever it comes from"


@pytest.mark.parametrize(
    ("status", "text", "why"),
    [(404, PATCH, "the server answers 404"), (200, "<html>log in</html>", "it is not a patch")],
)
def test_a_patch_that_cannot_be_fetched(bench: Bench, tree: Path, status: int, text: str, why: str) -> None:
    with serving(status, text) as (url, _), pytest.raises(DownloadError, match=why) as caught:
        apply(bench, tree_from(str(tree), patches=[f"{url}/1.patch"]))
    assert caught.value.code == 4
    with pytest.raises(DownloadError, match="cannot fetch the patch"):
        apply(bench, tree_from(str(tree), patches=[f"{url}/1.patch"]))
    assert not (bench.root / "vendor").exists()


def test_a_read_only_vendor_directory_is_said_and_read(
    bench: Bench, tree: Path, tmp_path: Path, read_only: Callable[[Path], None]
) -> None:
    here = apply(bench, tree_from(str(tree), patches=[write(tmp_path / "a.patch")]))
    read_only(bench.root / "vendor")
    bench.ran()
    assert apply(bench, tree_from(str(tree), patches=[write(tmp_path / "a.patch")])) == here
    bench.execute(compile_step(tree_from(str(tree), patches=[write(tmp_path / "a.patch")]).node))
    assert bench.ran() == ["compile"], "what is there is built from"
    with pytest.raises(StoreError, match=r"cannot write to .*vendor"):
        apply(bench, tree_from(str(tree), patches=[write(tmp_path / "b.patch", PATCH.replace("return 1", "return 5"))]))
