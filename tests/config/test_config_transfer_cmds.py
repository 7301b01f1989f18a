"""`config import` and `config export` on the command line."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest

from llama_runner.cli.config_import_export_cmds import EXPORTS, IMPORTS, export_, import_
from llama_runner.cli.main import main
from llama_runner.config import export_file, import_file
from llama_runner.config.config import Config
from tests.config.imports import DATA


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty directory, with an empty root."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLAMA_RUNNER_ROOT", str(tmp_path / "root"))
    return tmp_path


def run(*words: object) -> int:
    """Run ``config import``."""
    return main([*map(str, words)], command=import_, name="llama-runner config import")


def test_the_formats_of_the_options_are_those_of_the_package() -> None:
    assert set(IMPORTS) == set(import_file.FORMATS)
    assert tuple(EXPORTS) == export_file.FORMATS


def test_the_tables_go_to_standard_output_and_the_report_to_standard_error(
    capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    assert run(DATA / "Modelfile.mario") == 0
    out, err = capsys.readouterr()
    (here / "llama-runner.toml").write_text(out)
    assert list(Config.load(here / "llama-runner.toml").models) == ["mario"]
    assert "   10  taken       ADAPTER ./style.gguf -> models.mario.lora = " in err
    assert err.splitlines()[-1] == "imported mario from modelfile; 5 parts not taken"


def test_a_command_line_follows_two_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--name", "q", "--", "llama-server", "-m", "m.gguf", "-c", "8192", "--temp", "0.5") == 0
    assert capsys.readouterr().out == (
        '[models.q]\nsource = "./m.gguf"\nctx_size = 8192\n\n[models.q.sampling]\ntemperature = 0.5\n'
    )


def test_standard_input_is_read_for_a_dash(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((DATA / "presets.ini").read_bytes())))
    assert run("-", "--format", "ini") == 0
    assert '[models."llama3.1:8b"]' in capsys.readouterr().out


def test_the_json_document_has_tables_and_items(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(DATA / "compose.yaml", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["models"], found["written"]) == ("compose", ["chat", "embed"], None)
    assert found["tables"]["models"]["chat"]["port"] == 9000
    assert {"line", "text", "kind", "became", "note"} == set(found["items"][0])


def test_a_new_file_and_an_existing_one(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    shutil.copy(DATA / "start.sh", here)
    assert run("start.sh", "-o", "mine.toml") == 0
    assert run("--into", "mine.toml", "--", "llama-server", "-m", "x.gguf") == 0
    assert list(Config.load(here / "mine.toml").models) == ["Qwen3-8B", "a", "x"]
    assert run("--into", "mine.toml", "--", "llama-server", "-m", "x.gguf") == 2
    assert "the name x is taken" in capsys.readouterr().err
    assert run("--into", "mine.toml", "--force", "--", "llama-server", "-m", "y.gguf", "-a", "x") == 0
    assert Config.load(here / "mine.toml").models["x"].source == str(here / "y.gguf")
    assert run("start.sh", "-o", "mine.toml") == 2


def test_where_no_model_can_be_taken_the_report_says_why(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    (here / "Modelfile").write_text("FROM llama3.2\nPARAMETER num_ctx 4096\n")
    assert run("Modelfile") == 2
    err = capsys.readouterr().err
    assert "    2  not taken   PARAMETER num_ctx 4096   (the model llama3.2 is left out)" in err
    assert "error: modelfile, line 1: no model can be taken" in err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "name one FILE"),
        (["a", "b"], "name one FILE"),
        (["a", "--", "llama-server"], "not both"),
        (["a", "--force"], "--force belongs to --into"),
        (["a", "-o", "x", "--into", "y"], "exclude each other"),
        (["absent"], "cannot be read: No such file"),
        (["a", "--format", "toml"], "'toml' is not one of"),
        (["--", "vllm"], "vllm is no llama-server"),
        (["--into", "absent.toml", "--", "llama-server", "-m", "x"], "absent.toml does not exist"),
    ],
)
def test_wrong_usage_is_told_with_exit_code_2(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 2
    assert text in capsys.readouterr().err


def test_control_characters_of_a_file_are_shown_as_escapes(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    (here / "Modelfile").write_text("FROM ./m.gguf\nPARAMETER \x1b[31mred 1\nSYSTEM \x1b]0;title\x07\n")
    assert run("Modelfile") == 0
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert r"\x1b[31mred" in err


def test_nothing_is_written_into_the_root(here: Path) -> None:
    assert run("--", "llama-server", "-m", "x.gguf") == 0
    assert [path.name for path in here.iterdir()] == []


def test_prepared_models_are_exported(binaries: Path, capsys: pytest.CaptureFixture[str], here: Path) -> None:
    (here / "llama-runner.toml").write_text(
        '[models.tiny]\ndemo = true\nctx_size = 128\n\n[models.absent]\nsource = "ORG/absent"\n'
    )
    words = ["--root", str(binaries), "--to"]
    assert main([*words, "llama-swap"], command=export_) == 0
    out, err = capsys.readouterr()
    again = import_file.import_text(out, base=here, target=here)
    assert again.models == ("tiny",)
    assert Path(again.tables["models"]["tiny"]["source"]).is_file()
    assert "absent: left out: " in err
    assert main([*words, "ini", "tiny", "-o", "presets.ini", "--json"], command=export_) == 0
    assert json.loads(capsys.readouterr().out)["models"] == ["tiny"]
    assert "[tiny]\nmodel = " in (here / "presets.ini").read_text()
    assert main([*words, "ini", "tiny", "-o", "presets.ini"], command=export_) == 2
    assert main([*words, "ini", "tini"], command=export_) == 2
    assert "did you mean tiny?" in capsys.readouterr().err


def test_an_export_without_a_configuration_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--to", "ini"], command=export_) == 2
    assert "no configuration file" in capsys.readouterr().err
