"""``config init``: the wizard on a real pseudo-terminal, and the same with flags alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import psutil
import pytest

from llama_runner.config.config import Config
from llama_runner.config.new_file import name_for, new_file_text
from llama_runner.config.schema import FILE_NAME
from llama_runner.demo import MODEL_DIRECTORY
from tests.config.files import Write, write_in
from tests.conftest import Command, says
from tests.fakehub.hub import Hub
from tests.sources.gguf_files import write

Start = Callable[..., "pexpect.spawn[str]"]
ANSWERED = 60


@pytest.fixture
def directory(tmp_path: Path, llama_runner: Command) -> Path:
    """Return the working directory of the commands."""
    return tmp_path / "cwd"


@pytest.fixture
def wizard(directory: Path, root: Path) -> Iterator[Start]:
    """Return a function that starts the wizard on a terminal."""
    opened = []

    def start(*words: object) -> pexpect.spawn[str]:
        arguments = ["-m", "llama_runner", "config", "init", *map(str, words), "--root", str(root)]
        child = pexpect.spawn(sys.executable, arguments, cwd=str(directory), encoding="utf-8", timeout=ANSWERED)
        child.setwinsize(40, 200)
        opened.append(child)
        return child

    yield start
    for child in opened:
        child.close(force=True)


def answer(child: pexpect.spawn[str], question: str, text: str) -> str:
    """Wait for a question, answer it, and return what was shown before it."""
    child.expect_exact(question)
    shown = child.before or ""
    child.sendline(text)
    return shown


def wait_until_it_reads(child: pexpect.spawn[str]) -> None:
    """Wait until the rest of a question is shown and the process waits: Python loses a Ctrl-C just before it reads."""
    child.expect_exact(": ")
    while psutil.Process(child.pid).status() != psutil.STATUS_SLEEPING:
        time.sleep(0.01)


def ended(child: pexpect.spawn[str]) -> int | None:
    """Wait for the end and return the exit status."""
    child.expect(pexpect.EOF)
    child.wait()
    status: int | None = child.exitstatus
    return status


def test_the_wizard_asks_one_question_after_the_other_and_writes_a_file_that_runs(
    wizard: Start, directory: Path, root: Path, llama_runner: Command
) -> None:
    child = wizard()
    answer(child, "model (ORG/MODEL", "no-such-model")
    answer(child, "model (ORG/MODEL", str(MODEL_DIRECTORY))
    table = answer(child, "quantization [", "q9_9")
    assert "recommended: " in table
    assert "is not in the table" in answer(child, "quantization [", "Q4_K_M")
    assert "of memory" in answer(child, "context in tokens", "512")
    assert "A coding agent" in answer(child, "preset, or none", "agnet")
    assert "there is no preset 'agnet'" in answer(child, "preset, or none", "latency")
    answer(child, "name [", "my:model")
    answer(child, "may other machines connect", "y")
    answer(child, "file with the keys", "k.keys")
    assert ended(child) == 0
    model = Config.load(directory / "llama-runner.toml").models["my:model"]
    assert model.source == str(MODEL_DIRECTORY)
    assert model.preset == "latency"
    assert model.options == {
        "quantization": "q4_k_m",
        "ctx_size": 512,
        "host": "0.0.0.0",
        "api_key_file": directory / "k.keys",
    }
    assert (directory / "k.keys").stat().st_mode & 0o777 == 0o600
    assert (directory / FILE_NAME).is_file()
    assert llama_runner("config", "check", "--root", root).code == 0
    assert llama_runner("plan", "my:model", "--root", root).code == 0


def test_enter_takes_every_default(wizard: Start, directory: Path) -> None:
    child = wizard(MODEL_DIRECTORY)
    for question in ("quantization [", "context in tokens", "preset, or none", "name [", "may other machines connect"):
        answer(child, question, "")
    assert ended(child) == 0
    [model] = Config.load(directory / "llama-runner.toml").models.values()
    assert set(model.options) == {"quantization", "ctx_size"}
    assert model.preset is None


@pytest.mark.parametrize("question", ["model (ORG/MODEL", "quantization [", "name ["])
def test_ctrl_c_writes_nothing(wizard: Start, directory: Path, question: str) -> None:
    child = wizard(*([] if question.startswith("model") else [MODEL_DIRECTORY]))
    if question == "name [":
        for each in ("quantization [", "context in tokens", "preset, or none"):
            answer(child, each, "")
    child.expect_exact(question)
    wait_until_it_reads(child)
    child.sendintr()
    assert ended(child) == 130
    assert not list(directory.iterdir())


def test_a_file_that_exists_is_asked_about_and_gets_the_model(wizard: Start, directory: Path) -> None:
    before = "# mine\n[models.a]\nsource = 'x/y' # c"
    write_in(directory)(before)
    child = wizard(MODEL_DIRECTORY, "--name", "b")
    answer(child, "exists; add a model to it?", "")
    for question in ("quantization [", "context in tokens", "preset, or none", "may other machines connect"):
        answer(child, question, "")
    assert ended(child) == 0
    text = (directory / "llama-runner.toml").read_text()
    assert text.startswith(before + "\n\n[models.b]\n")
    child = wizard(MODEL_DIRECTORY)
    answer(child, "exists; add a model to it?", "n")
    assert ended(child) == 2
    assert (directory / "llama-runner.toml").read_text() == text


def test_siblings_are_offered(wizard: Start, directory: Path, binaries: Path) -> None:
    [source] = list((binaries / "models" / "gguf").glob("*demo*/model.q4_k_m.gguf"))[:1]
    for name in ("m.gguf", "mmproj-m.gguf", "m-draft.gguf"):
        (directory / name).symlink_to(source)
    child = wizard("m.gguf", "-c", "256", "--preset", "none", "--name", "m")
    answer(child, "a projector is beside it", "n")
    answer(child, "m-draft.gguf is beside it: use it as draft model?", "y")
    answer(child, "may other machines connect", "n")
    assert ended(child) == 0
    model = Config.load(directory / "llama-runner.toml").models["m"]
    assert model.options == {"ctx_size": 256, "projector": False}
    assert model.llama == {"model-draft": str(directory / "m-draft.gguf")}


@pytest.fixture
def on_the_hub(hub: Hub, tmp_path: Path, binaries: Path) -> str:
    """Return the name of a model on the Hub that has a projector and a draft model."""
    model = next((binaries / "models" / "gguf").glob("*demo*/model.q4_k_m.gguf"))
    small = write(tmp_path / "small.gguf")
    hub.repo("acme/m", {"m-Q8_0.gguf": model, "mmproj-m-F16.gguf": small, "m-draft-Q8_0.gguf": small})
    return "acme/m"


@pytest.mark.usefixtures("user_of_the_hub")
def test_siblings_on_the_hub_are_offered_and_only_a_chosen_draft_is_fetched(
    wizard: Start, directory: Path, root: Path, hub: Hub, on_the_hub: str, llama_runner: Command
) -> None:
    for wanted in "ny":
        child = wizard(on_the_hub, "-c", "256", "--preset", "none", "--name", wanted, *(["--add"] * (wanted == "y")))
        answer(child, "a projector is beside it", wanted)
        answer(child, "m-draft-Q8_0.gguf is beside it: use it as draft model? It is fetched then.", wanted)
        answer(child, "may other machines connect", "n")
        assert ended(child) == 0
        fetched = [each.path for each in hub.requests if each.which == "cdn" and "draft" in each.path]
        assert bool(fetched) == (wanted == "y")
    models = Config.load(directory / "llama-runner.toml").models
    assert (models["n"].options["projector"], models["n"].llama) == (False, {})
    assert "projector" not in models["y"].options
    path = Path(models["y"].llama["model-draft"])
    assert path.is_relative_to(root)
    assert path.name == "m-draft-Q8_0.gguf"
    assert f"--model-draft {path}" in " ".join(
        llama_runner("plan", "y", "--root", root, "--json").json["launch"]["argv"]
    )


@pytest.mark.usefixtures("user_of_the_hub")
def test_a_draft_on_the_hub_has_a_flag(directory: Path, root: Path, on_the_hub: str, llama_runner: Command) -> None:
    at = ("--yes", "--root", root)
    done = llama_runner("config", "init", on_the_hub, "--draft", "m-draft-Q8_0.gguf", *at)
    assert done.code == 0, done
    assert Path(Config.load(directory / "llama-runner.toml").models["m"].llama["model-draft"]).is_file()
    wrong = llama_runner("config", "init", on_the_hub, "--draft", "other.gguf", "--force", *at)
    says(wrong, 2, "other.gguf is not a file", "the repository has m-draft-Q8_0.gguf")


def test_with_flags_alone_it_runs_in_scripts(directory: Path, root: Path, llama_runner: Command) -> None:
    at = ("--root", root)
    flags = ("-q", "q8_0", "-c", "auto", "--preset", "chat", "--name", "a", "--yes")
    done = llama_runner("config", "init", MODEL_DIRECTORY, *flags, *at, "--json")
    path = directory / "llama-runner.toml"
    assert (done.code, done.json) == (0, {"file": str(path), "model": "a"}), done
    says(llama_runner("config", "init", MODEL_DIRECTORY, *flags, *at), 2, "exists", "--add")
    says(llama_runner("config", "init", MODEL_DIRECTORY, *flags, *at, "--add"), 2, "declares 'a' already")
    assert llama_runner("config", "init", MODEL_DIRECTORY, "--yes", "--name", "b", "--add", *at).code == 0
    assert list(Config.load(path).models) == ["a", "b"]
    assert Config.load(path).models["a"].options == {"quantization": "q8_0", "ctx_size": "auto"}
    assert llama_runner("config", "init", "demo", "--yes", "--force", *at).code == 0
    assert list(Config.load(path).models) == ["demo"]
    assert path.read_text().startswith(f"#:schema ./{FILE_NAME}\n")


def test_without_a_terminal_it_says_what_is_needed(directory: Path, llama_runner: Command, root: Path) -> None:
    says(llama_runner("config", "init", "demo", "--root", root), 2, "--yes takes the defaults")
    says(llama_runner("config", "init", "--yes", "--root", root), 2, "say which model")
    says(llama_runner("config", "init", "no-such", "--yes", "--root", root), 3, "no-such is not a file")
    says(llama_runner("config", "init", "demo", "--yes", "--preset", "x", "--root", root), 2, "there is no preset 'x'")
    says(llama_runner("config", "init", "demo", "--yes", "--name", "a,b", "--root", root), 2, "cannot be a name")
    says(llama_runner("config", "init", "demo", "--yes", "--draft", "gone", "--root", root), 2, "gone is not a file")
    assert not list(directory.iterdir())


def test_a_model_that_cannot_be_looked_at_is_written_as_it_is(
    directory: Path, llama_runner: Command, root: Path
) -> None:
    done = llama_runner("config", "init", "ORG/MODEL-7B-Instruct-GGUF:Q8_0", "--yes", "--offline", "--root", root)
    assert done.code == 0, done
    assert "nothing is recommended: " in done.err
    assert Config.load(directory / "llama-runner.toml").models["model-7b"].source == "ORG/MODEL-7B-Instruct-GGUF:Q8_0"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("Qwen/Qwen3-8B-GGUF:Q4_K_M", "qwen3-8b"),
        ("./models/Tiny Model.gguf", "tiny-model"),
        ("https://example.org/a/M.gguf?x=1", "m"),
        ("demo", "demo"),
        ("./模型.gguf", "模型"),
        ("/", "model"),
        (",", "model"),
    ],
)
def test_a_model_gets_a_short_name(source: str, name: str) -> None:
    assert name_for(source) == name


def test_a_new_file_says_what_its_keys_mean_whatever_the_name(write: Write) -> None:
    for name in ("a", "a b", 'q"', "模型:8b"):
        text = new_file_text(name, {"source": "x/y", "ctx_size": "auto", "llama": {"parallel": 2}})
        model = Config.load(write(text)).models[name]
        assert (model.source, model.llama) == ("x/y", {"parallel": 2})
        assert "# Tokens of context" in text
