"""Twenty tasks of somebody's first hour, from a fresh root: README.md leads to each, and the first attempt succeeds.

Each test takes its commands from the section that a newcomer finds, and runs them as they are written there. Only the
programs of llama.cpp are in the root beforehand, so that nothing is compiled.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llama_runner import Runner
from llama_runner.demo import MODEL_DIRECTORY
from tests.documentation import Section, Shell, python, shell
from tests.e2e.lora import write_adapter
from tests.e2e.serving import is_running, request
from tests.fakehub.hub import Hub

__all__ = ["shell"]

QUESTION, ANSWER = "what is a step?", "A step is one piece of work"
BACKGROUND = ("README.md", "Run in the background")
RECIPES = {
    "embeddings and their similarity": (
        "Embeddings and similarity",
        "test_13_15_texts_are_compared_by_their_embeddings",
    ),
    "a second server of another model": ("Two models at once", "test_13_15_two_models_are_served_at_once"),
    "an offline machine": (
        "Move to an offline machine",
        "test_13_15_a_model_and_its_programs_move_to_an_offline_machine",
    ),
    "another llama.cpp": ("Upgrade and downgrade llama.cpp", "test_13_09_llama_cpp_is_upgraded_and_downgraded"),
    "disk space": ("Free disk space", "test_13_15_space_is_freed_and_what_is_needed_comes_back"),
}
"""Tasks whose commands are a recipe: its heading, and the test in tests/test_recipes.py that runs them."""


def fine_tuned(tmp_path: Path) -> Path:
    """Return a directory as a trainer leaves it."""
    return Path(shutil.copytree(MODEL_DIRECTORY, tmp_path / "checkpoint-500"))


def served(said: str) -> str:
    """Return the URL in a start summary."""
    found = re.search(r"^listening (\S+)", said, re.MULTILINE)
    assert found, said
    return found[1]


@pytest.mark.parametrize("task", RECIPES)
def test_first_hour_a_recipe(task: str) -> None:
    heading, test = RECIPES[task]
    assert Section("docs/recipes.md", heading).blocks()
    assert f"def {test}(" in (Path(__file__).parents[1] / "test_recipes.py").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("curl") is None, reason="the line begins with curl")
def test_first_hour_the_demo_is_served_and_answers_curl(shell: Shell) -> None:
    said = shell.run(Section("README.md", "First command").line("llama-runner run --demo") + " --detach")
    [example] = re.findall(r"^try +(curl .*)$", said, re.MULTILINE)
    assert ANSWER in shell.run(example)


def test_first_hour_one_question_is_asked_of_a_model_and_of_a_server_by_its_name(shell: Shell) -> None:
    first = shell.run(Section("README.md", "Ask a question").line("llama-runner infer --demo"))
    assert first.splitlines()[-1].startswith(ANSWER)
    shell.words |= {"MODEL": "demo", "a question": QUESTION, "NAME": "demo"}
    shell.run(Section(*BACKGROUND).line("llama-runner run --demo --detach"))
    asked = Section("docs/serving.md", "Which server is used").line("llama-runner infer MODEL")
    assert shell.run(asked).startswith(ANSWER), "it starts none and prints nothing else"
    stopped = shell.run(Section("docs/serving.md", "In the background").line("llama-runner stop NAME"))
    assert stopped.startswith("stopped   demo:q4_k_m at ")


def test_first_hour_a_model_of_the_hub_is_served(shell: Shell, hub: Hub, binaries: Path, tmp_path: Path) -> None:
    hub.repo("org/model", {"model-Q8_0.gguf": Runner(binaries).prepare(demo=True).model})
    shell.words["ORG/MODEL"] = "org/model"
    shell.env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
    said = shell.run(
        Section("README.md", "Serve a model from the Hugging Face Hub").line("llama-runner run ORG/MODEL:Q8_0")
    )
    assert "download" in said
    assert served(said)


def test_first_hour_options_of_llama_server_are_passed_on(shell: Shell) -> None:
    shell.words["MODEL"] = "--demo"
    line = Section("docs/serving.md", "Options of llama-server").line("llama-runner run MODEL")
    assert "--flash-attn on" in line
    url = served(shell.run(line.replace("8192", "512") + " --detach"))
    status, slots = request(url, "/slots")
    assert (status, [slot["n_ctx"] for slot in slots]) == (200, [256, 256]), "-np 2 shares -c 512"


def test_first_hour_quantizations_are_compared(shell: Shell, tmp_path: Path) -> None:
    shell.words["DIR"] = str(fine_tuned(tmp_path))
    commands = Section("README.md", "Quantize and compare quality").blocks()[0].splitlines()
    said = shell.run(commands[1].replace(" TEXT", " TEXT --quality-chunks 2"))
    assert re.search(r"^model\.q4_k_m\.gguf +\d.*%$", said, re.MULTILINE)
    assert re.search(r"^model\.q8_0\.gguf +\d.*%$", said, re.MULTILINE)


def test_first_hour_a_fine_tuned_directory_is_served(shell: Shell, tmp_path: Path) -> None:
    shell.words["DIR"] = str(fine_tuned(tmp_path))
    said = shell.run(Section("README.md", "Serve your own model").line("llama-runner run --safetensors-dir DIR"))
    assert "model     checkpoint-500:q4_k_m: llama, q4_k_m" in said


def test_first_hour_a_forgotten_tokenizer_is_named_with_the_way_to_save_it(shell: Shell, tmp_path: Path) -> None:
    model = fine_tuned(tmp_path)
    (model / "tokenizer.json").unlink()
    shell.words["DIR"] = str(model)
    section = Section("docs/models.md", "A directory or a file of yours")
    said = shell.run(section.line("llama-runner run --safetensors-dir DIR"), code=3)
    assert f'hint: save it there: tokenizer.save_pretrained("{model}")' in said
    assert 'tokenizer.save_pretrained("DIR")' in section.text


def test_first_hour_an_adapter_is_served_with_its_model(shell: Shell, hub: Hub, binaries: Path, tmp_path: Path) -> None:
    file = Runner(binaries).prepare(demo=True).model
    hub.repo("org/model", {"model-Q8_0.gguf": file})
    shell.words |= {"ORG/MODEL": "org/model", "ADAPTER": str(write_adapter(tmp_path / "adapter.gguf", file, 1))}
    shell.env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
    line = Section("README.md", "Serve your own model").line("llama-runner run ORG/MODEL --lora")
    url = served(shell.run(f"{line} --detach"))
    status, adapters = request(url, "/lora-adapters")
    assert (status, [Path(each["path"]).name for each in adapters]) == (200, ["adapter.gguf"])


def test_first_hour_a_server_lives_in_the_background(shell: Shell) -> None:
    section, shell.words["NAME"] = Section(*BACKGROUND), "demo:q4_k_m"
    url = served(shell.run(section.line("llama-runner run --demo --detach")))
    assert url in shell.run(section.line("llama-runner ps"))
    assert url in shell.run(section.line("llama-runner run --demo --detach")), "it may be repeated"
    assert "model loaded" in shell.run(section.line("llama-runner logs"))
    assert shell.run(section.line("llama-runner stop --all")).startswith("stopped   demo:q4_k_m at ")
    last = shell.run(Section("docs/serving.md", "In the background").line("llama-runner logs NAME"))
    assert "cleaning up before exit" in last, "the log of a server that has ended"


def test_first_hour_a_server_that_failed_is_started_by_restart(shell: Shell) -> None:
    shell.words["NAME"] = "demo:q4_k_m"
    shell.run(Section(*BACKGROUND).line("llama-runner run --demo --detach"))
    [before] = json.loads(shell.run("llama-runner ps --json"))
    subprocess.run(["kill", f"-{signal.SIGSEGV.value}", str(before["pid"])], check=True)
    shell.run("llama-runner logs NAME --follow")  # until the server has ended
    said = shell.run(Section("docs/serving.md", "In the background").line("llama-runner restart NAME"))
    assert before["url"] in said
    [after] = json.loads(shell.run("llama-runner ps --json"))
    assert (after["state"], after["url"], after["pid"] != before["pid"]) == ("ready", before["url"], True)
    assert not is_running(before["pid"])


def test_first_hour_a_service_of_the_system_is_written(shell: Shell, tmp_path: Path) -> None:
    shell.words["MODEL"] = "--demo"
    shell.env = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    section = Section("docs/serving.md", "A service of the system")
    said = shell.run(section.line("llama-runner service install"))
    assert re.search(r"^start +systemctl --user .*llama-runner-chat.service", said, re.MULTILINE)
    assert "ExecStart=" in shell.run(section.line("llama-runner service show"))
    shell.run(section.line("llama-runner service uninstall"))


def test_first_hour_a_script_reads_json_and_exit_statuses(shell: Shell) -> None:
    assert '{"error": …, "hint": …, "code": …}' in Section("docs/serving.md", "In scripts").text
    table = dict(re.findall(r"^\| (\d+) \| (.*) \|$", Section("README.md", "What you can rely on").text, re.MULTILINE))
    assert table["3"].startswith("the model cannot be used")
    prepare = Section("README.md", "More commands").line("llama-runner prepare --demo")
    assert Path(json.loads(shell.run(f"{prepare} --json 2>/dev/null"))["model"]).is_file()
    said = json.loads(shell.run("llama-runner prepare ./none --json", code=3))
    assert (said["code"], "does not exist" in said["error"], bool(said["hint"])) == (3, True, True)


def test_first_hour_python_at_a_prompt(shell: Shell) -> None:
    [example] = Section("README.md", "From Python").blocks("python")
    assert python(shell, example).startswith(ANSWER)


def test_first_hour_tests_of_an_application(shell: Shell) -> None:
    [example] = Section("docs/python.md", "Testing your own application").blocks("python test")
    (shell.directory / "test_application.py").write_text(example)
    assert "3 passed" in shell.run(f"{sys.executable} -m pytest -q -p no:cacheprovider")


def test_first_hour_a_key_for_other_machines(shell: Shell) -> None:
    shell.words["MODEL"] = "--demo"
    line = Section("docs/serving.md", "Who may use it").line("llama-runner run MODEL --host 0.0.0.0 --api-key auto")
    said = shell.run(f"{line} --detach")
    [key] = re.findall(r"^API key +(\S+)", said, re.MULTILINE)
    url = served(said).replace("0.0.0.0", "127.0.0.1")
    assert request(url, "/health")[0] == 200
    body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 4}
    assert request(url, "/v1/chat/completions", body)[0] == 401
    assert request(url, "/v1/chat/completions", body, {"Authorization": f"Bearer {key}"})[0] == 200
