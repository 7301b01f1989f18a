"""``models add``: many models at once, without programs, and what is asked on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_runner import Runner
from llama_runner.core.errors import Interrupted, UsageError
from llama_runner.core.events import Event, StepProgress
from llama_runner.demo import MODEL_DIRECTORY
from tests.cli.terminal import Session
from tests.conftest import MODULE, Command, says
from tests.fakehub.hub import Hub
from tests.sources.gguf_files import write

pytestmark = pytest.mark.usefixtures("user_of_the_hub")


@pytest.fixture
def hub(hub: Hub, tmp_path: Path) -> Hub:
    """Return a hub with two models: one in three quantizations, one in one."""
    content = write(tmp_path / "tiny.gguf").read_bytes()
    files: dict[str, bytes | Path] = {
        f"many-{name}.gguf": content + bytes(size) for name, size in (("Q4_K_M", 1), ("Q8_0", 5000), ("BF16", 9000))
    }
    hub.repo("acme/many", files)
    hub.repo("acme/single", {"single-Q8_0.gguf": content})
    return hub


def there(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "models").glob("gguf/*/*.gguf"))


def test_14_02_many_models_are_added_without_programs(hub: Hub, tmp_path: Path, llama_runner: Command) -> None:
    root = tmp_path / "root"
    empty = tmp_path / "no programs"
    empty.mkdir()
    words = ("models", "add", "acme/many", "acme/single", "--json", "--root", root)
    done = llama_runner(*words, env={"PATH": str(empty)})
    assert done.code == 0, done
    assert [(each["name"], each["error"], each["files"][0]["ran"]) for each in done.json] == [
        ("acme/many", None, True), ("acme/single", None, True),
    ]  # fmt: skip
    assert there(root) == ["many-Q4_K_M.gguf", "single-Q8_0.gguf"]
    assert not (root / "bins").exists()
    quantized = llama_runner("models", "add", "demo", "--root", root, env={"PATH": str(empty)})
    says(quantized, 5, "no C compiler found")
    plain = llama_runner("models", "add", "demo:bf16", "--root", root, env={"PATH": str(empty)})
    assert plain.code == 0, plain
    hub.reset_log()
    again = llama_runner("models", "add", "acme/many", "acme/single", "--root", root)
    assert again.out.count("was here") == 2
    assert hub.requests == []


def test_14_02_some_may_fail_the_others_go_on_and_the_exit_status_is_the_highest(
    hub: Hub, tmp_path: Path, llama_runner: Command
) -> None:
    root = tmp_path / "root"
    names = ("acme/nowhere", "acme/single", "acme/many:Q2_K", "not a name", "a\x1bb/c")
    said = llama_runner("models", "add", *names, "--root", root)
    says(said, 3, "4 of 5 models were not added")
    assert there(root) == ["single-Q8_0.gguf"]
    assert "added     " in said.out
    for name in ("acme/nowhere", "acme/many:Q2_K", "not a name", r"a\x1bb/c"):
        assert f"failed    {name}: " in said.err
    hub.fault("404", path="*many-Q8_0.gguf", times=None)
    said = llama_runner("models", "add", "acme/many:Q8_0", "acme/nowhere", "--json", "--root", root)
    says(said, 4)
    assert [each["error"]["code"] for each in said.json] == [4, 3]
    alone = llama_runner("models", "add", "acme/nowhere", "--root", root)
    says(alone, 3, "acme/nowhere")


def test_14_02_a_python_caller_gets_the_error_of_each_name(hub: Hub, tmp_path: Path) -> None:
    failed, added = Runner(tmp_path / "root").models.add("acme/nowhere", "acme/single")
    assert failed.error is not None
    assert failed.files == ()
    assert added.error is None
    assert added.files[0].path.name == "single-Q8_0.gguf"
    file = write(tmp_path / "mine.gguf")
    (local,) = Runner(tmp_path / "root").models.add(str(file))
    assert isinstance(local.error, UsageError)
    with pytest.raises(UsageError, match="no model is named"):
        Runner(tmp_path / "root").models.add()


def test_14_02_an_interrupt_ends_it(hub: Hub, tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, StepProgress):
            raise Interrupted

    with pytest.raises(Interrupted):
        Runner(tmp_path / "root", on_event=interrupt).models.add("acme/many", "acme/single")
    assert there(tmp_path / "root") == []


def test_14_02_choices_have_sizes_what_fits_and_the_default(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = Runner(tmp_path / "root").models
    monkeypatch.setattr("llama_runner.system.hardware.total_memory", lambda: (512 << 20) + 8000)
    found = models.choices("acme/many")
    assert [(each.quantization, each.is_default, each.fits) for each in found] == [
        ("Q4_K_M", True, True), ("Q8_0", False, True), ("BF16", False, False),
    ]  # fmt: skip
    assert [each.bytes for each in found] == sorted(each.bytes for each in found)
    for name in ("acme/many:Q8_0", "acme/single", "hf://acme/many/many-BF16.gguf", "demo"):
        assert models.choices(name) == [], name
    assert models.choices("acme/many", max_size=1 << 30) == []
    here = models.choices(str(MODEL_DIRECTORY))
    assert [each.quantization for each in here if each.is_default] == ["q4_k_m"]
    assert {"q8_0", "f16"} <= {each.quantization for each in here}


@pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals")
def test_14_02_on_a_terminal_it_is_asked_which_quantizations(hub: Hub, tmp_path: Path) -> None:
    root = tmp_path / "root"
    session = Session(*MODULE, "models", "add", "acme/many", "acme/single", "--root", root)
    asked = session.read_until(lambda text: "numbers, with commas between them [1]" in text)
    assert "acme/many is there in several quantizations" in asked
    assert "many-Q4_K_M.gguf   (default)" in asked
    os.write(session.master, b"9\n")
    session.read_until(lambda text: "'9' is not a number from 1 to 3" in text)
    os.write(session.master, b"2, BF16\n")
    code, screen = session.finish()
    assert code == 0, screen.text
    assert there(root) == ["many-BF16.gguf", "many-Q8_0.gguf", "single-Q8_0.gguf"]
    assert not any("several" in line and "single" in line for line in screen.text), "there is nothing to choose"


@pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals")
@pytest.mark.parametrize("more", [["--yes"], ["-q", "q8_0"], ["--json"]])
def test_14_02_nothing_is_asked_when_an_option_says_it(hub: Hub, tmp_path: Path, more: list[str]) -> None:
    session = Session(*MODULE, "models", "add", "acme/many", *more, "--root", tmp_path / "root")
    code, screen = session.finish()
    assert code == 0, screen.text
    assert not any("numbers, with commas" in line for line in screen.text)


@pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals")
def test_14_02_ctrl_c_at_the_question_ends_it(hub: Hub, tmp_path: Path) -> None:
    session = Session(*MODULE, "models", "add", "acme/many", "--root", tmp_path / "root")
    session.read_until(lambda text: "numbers, with commas between them" in text)
    session.interrupt()
    code, _ = session.finish()
    assert code == 130
    assert there(tmp_path / "root") == []


def test_14_02_a_store_that_cannot_be_written_is_said(
    hub: Hub, tmp_path: Path, read_only: Callable[[Path], None], llama_runner: Command
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    read_only(root)
    says(llama_runner("models", "add", "acme/single", "--root", root), 7, "cannot write to")
    says(llama_runner("models", "add", "acme/single", "--offline", "--root", root), 3, "network")
