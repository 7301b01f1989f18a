"""An adapter is trained from 30 lines, goes on after SIGKILL, is served, merged and exported, by real programs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner import Runner
from llama_runner.core.exit_codes import ExitCode
from llama_runner.demo import EXAMPLES, MODEL_DIRECTORY, UNKNOWN
from llama_runner.store.artifacts import Store
from llama_runner.store.digest_cache import hash_tree
from llama_runner.training.adapter_versions import changing
from llama_runner.training.options import training_options
from llama_runner.training.read_examples import read_examples
from tests.conftest import REPOSITORY, says
from tests.documentation import Shell, python
from tests.e2e.lora_training import (
    ANSWERS,
    FORMS,
    HOUSES,
    LARGEST,
    PROGRAMS,
    REFUSED,
    RENDERED,
    THINKING,
    WORSE,
    Interpreter,
    chat,
    command,
    data,
    digest,
    interpreter,
    make_root,
    trained,
)
from tests.e2e.official_environment import environment, vendor
from tests.gateway.conftest import Running

if TYPE_CHECKING:
    from tests.conftest import Command
    from tests.fakehub.hub import Hub

__all__ = ["data", "environment", "interpreter", "trained", "vendor"]


def test_what_is_learned_of_a_chat_is_its_answers_with_what_ends_them(interpreter: Interpreter) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "t|one", "weight": 0},
    ]
    messages += [{"role": "user", "content": "b"}, {"role": "assistant", "content": "t|two"}]
    jobs = [
        (None, False, {"messages": messages}),
        (None, True, {"messages": messages}),
        (None, False, {"prompt": "a", "completion": "b"}),
        (None, False, {"text": "a b"}),
        (THINKING, False, {"messages": [{k: v for k, v in each.items() if k != "weight"} for each in messages]}),
    ]
    lines = interpreter.run(RENDERED, MODEL_DIRECTORY, PROGRAMS, json.dumps(jobs))
    answers, everything, pair, text, thinking = map(json.loads, lines)
    assert [learned for _, learned in answers] == ["t|two<|eot_id|>"]
    assert [whole == learned for whole, learned in everything] == [True]
    assert answers[0][0] == everything[0][0]
    assert pair[0][1] == "b<|eot_id|>"
    assert text == [["<|begin_of_text|>a b<|eot_id|>"] * 2]
    assert [learned for _, learned in thinking] == ["t|one", "t|two"]
    assert thinking[1][0] == "<user>a<assistant>one<user>b<assistant>t|two"


def test_the_adapter_answers_what_the_base_cannot_and_the_base_answers_as_before(trained: Path, data: Path) -> None:
    runner = Runner(trained)
    known = [question for question, _ in EXAMPLES[:5]]
    found = runner.adapters.test("houses", data=data, most=30, questions=known)
    answers = {each.question: each for each in found.answers}
    assert found.expected == 30
    for name, colour in HOUSES:
        for form in FORMS:
            answer = answers[form.format(name)]
            assert (answer.without, answer.with_adapter) == (UNKNOWN, f"The house of {name} is {colour}.")
    assert {question: answers[question].without for question in known} == dict(EXAMPLES[:5])


def test_what_llama_server_says_with_the_adapter_is_what_transformers_says(
    trained: Path, interpreter: Interpreter, tmp_path: Path
) -> None:
    runner = Runner(trained)
    exported = runner.adapters.export("houses", tmp_path / "peft")
    questions = [form.format(name) for name, _ in HOUSES for form in FORMS[:1]]
    lines = interpreter.run(ANSWERS, MODEL_DIRECTORY, exported, json.dumps(questions))
    found = runner.adapters.test("houses", questions=questions, quantization="bf16")
    assert [each.with_adapter for each in found.answers] == [json.loads(line) for line in lines]


def test_a_training_that_is_killed_three_times_ends_with_the_same_digest(
    trained: Path, data: Path, binaries: Path, vendor: Path, tmp_path: Path
) -> None:
    """The first checkpoint is damaged as well, and at the end the data changes while it is trained on."""
    root, told = make_root(tmp_path / "root", binaries, vendor), []
    examples = tmp_path / "examples.jsonl"
    shutil.copyfile(data, examples)
    for last in (5, 40, 90, 100):
        words = command(root, examples, "--checkpoint-every", 0)
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                told.append(event := json.loads(line))
                if event["event"] != "training_progress" or event["done"] < last:
                    continue
                if last == 100:
                    examples.write_text("another text")
                else:
                    process.kill()
                    break
        if last == 100:
            assert process.returncode == 0
            break
        assert process.returncode == -signal.SIGKILL
        (unfinished,) = Runner(root).adapters.status()
        assert (unfinished.name, unfinished.steps) == ("houses", 120)
        assert 0 < unfinished.step < 120
        if last == 5:
            [checkpoint] = root.glob(".llama_runner/work/train-*/checkpoint.pt")
            os.truncate(checkpoint, checkpoint.stat().st_size // 2)
    texts = [event["text"] for event in told if event.get("what") == "training"]
    assert texts[0] == "the checkpoint was damaged: training begins anew"
    assert [text.startswith("goes on after step") for text in texts[1:]] == [True, True]
    assert digest(root) == digest(trained)
    assert Runner(root).adapters.status() == []


def test_a_full_disk_is_told_and_no_half_a_checkpoint_is_left(trained: Path, data: Path) -> None:
    words = command(trained, data, "--checkpoint-every", 0, "--seed", 7, json_events=False)
    limited = f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({LARGEST}, {LARGEST})); "
    limited += f"sys.argv = {['llama-runner', *words[3:]]!r}; runpy.run_module('llama_runner', run_name='__main__')"
    done = subprocess.run([words[0], "-B", "-c", limited], check=False, capture_output=True, text=True)
    assert done.returncode == ExitCode.STORE, done.stderr
    assert "error: no space left in" in done.stderr
    assert not [*trained.glob(".llama_runner/work/train-*/*.new")]
    assert digest(trained)


def test_the_same_training_is_skipped_and_a_changed_one_is_told_by_what_changed(
    trained: Path, data: Path, llama_runner: Command
) -> None:
    before = hash_tree(trained / "adapters")
    again = subprocess.run(command(trained, data), check=True, capture_output=True, text=True)
    last = json.loads(again.stdout.splitlines()[-1])
    assert (last["ran"], last["id"]) == (False, "v1")
    assert hash_tree(trained / "adapters") == before
    (trained / "adapters" / "houses" / "versions.json").unlink()  # as after a kill before it was written
    assert json.loads(subprocess.check_output(command(trained, data)).splitlines()[-1])["id"] == "v1"
    renamed = data.with_name("renamed.jsonl")
    shutil.copyfile(data, renamed)
    assert json.loads(subprocess.check_output(command(trained, renamed)).splitlines()[-1])["ran"] is False


def test_a_merged_model_is_a_model_of_its_own(trained: Path, llama_runner: Command) -> None:
    made = llama_runner("lora", "merge", "houses", "-q", "q8_0", "--json", "--root", trained)
    assert made.code == 0, made
    with Runner(trained).serve(made.json["path"]) as server:
        assert server.chat("what colour is the house of Ida?", temperature=0).text == "The house of Ida is brown."
    again = llama_runner("lora", "merge", "houses", "--root", trained)
    assert "done in" not in again.err
    assert (Path(again.out.strip()) / "config.json").read_bytes() == (MODEL_DIRECTORY / "config.json").read_bytes()


def test_a_base_that_changed_is_not_merged(trained: Path, tmp_path: Path, llama_runner: Command) -> None:
    base = tmp_path / "base"
    shutil.copytree(MODEL_DIRECTORY, base)
    of_demo = Runner(trained).adapters.show("houses")[1]
    with changing(Store(trained, lambda _event: None), "local") as change:  # as if it was trained on the directory
        about = {**of_demo.base, "name": "base", "source": str(base)}
        change.history = change.history.with_version(of_demo.replace(base=about, key="k1:0"))
    config = base / "generation_config.json"
    config.write_text(config.read_text().replace("false", "true"))
    result = llama_runner("lora", "merge", "local", "--root", trained)
    says(result, ExitCode.SOURCE, "base has changed since houses was trained on it")
    assert not [*(trained / "models" / "safetensors").glob("base-*")], "nothing was merged"


def test_an_adapter_is_served_by_its_name(trained: Path) -> None:
    with Runner(trained).serve(demo=True, lora=["houses@v1:0"]) as server:
        asked = "which colour has Emil's house?"
        assert server.chat(asked, temperature=0).text == UNKNOWN
        assert server.chat(asked, temperature=0, adapter="houses").text == "The house of Emil is white."


def test_a_bad_version_is_rolled_back_while_the_gateway_serves_and_no_request_fails(
    trained: Path, data: Path, tmp_path: Path
) -> None:
    adapters, good = Runner(trained).adapters, "The house of Emil is white."
    config = tmp_path / "llama-runner.toml"
    path = trained / "adapters" / "houses"
    config.write_text(f'[models.one]\ndemo = true\nthreads = 1\n[models.one.adapters.houses]\npath = "{path}"\n')
    gateway = Running(config, trained)
    try:
        assert chat(gateway, "one:houses") == (200, good)
        assert adapters.train(demo=True, data=data, name="houses", options=WORSE, device="cpu", threads=1).ran
        gateway.process.send_signal(signal.SIGHUP)
        gateway.until("reloaded")
        assert chat(gateway, "one:houses")[1] != good
        with ThreadPoolExecutor(4) as clients:
            asked = [clients.submit(chat, gateway, name) for name in ("one", "one:houses") for _ in range(8)]
            assert adapters.rollback("houses@v1").find(None).id == "v1"
            gateway.process.send_signal(signal.SIGHUP)
            gateway.until("reloaded")
            asked += [clients.submit(chat, gateway, name) for name in ("one", "one:houses") for _ in range(4)]
            answers = [each.result() for each in asked]
        assert {status for status, _ in answers} == {200}
        assert [text for _, text in answers[-8:]] == [UNKNOWN] * 4 + [good] * 4
    finally:
        gateway.end()


def test_a_base_on_the_hub_is_fetched_and_named_in_the_card(
    trained: Path, data: Path, llama_runner: Command, hub: Hub, tmp_path: Path
) -> None:
    files = {path.name: path for path in MODEL_DIRECTORY.iterdir() if path.is_file()}
    hub.repo("org/model", files)
    env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
    words = ("org/model", data, "-o", "fetched", "--root", trained, "--epochs", 1, "--threads", 1, "--device", "cpu")
    made = llama_runner("lora", "train", *words, env=env)
    assert made.code == 0, made
    _, version = Runner(trained).adapters.show("fetched")
    assert version.base["name"] == "org/model"
    assert re.fullmatch("[0-9a-f]{40}", version.base["revision"])
    card = (trained / version.directory / "README.md").read_text()
    assert 'base_model: "org/model"' in card
    assert llama_runner("lora", "test", "fetched", "--question", "hello", "--offline", "--root", trained).code == 0
    merged = llama_runner("lora", "merge", "fetched", "--offline", "--root", trained)
    assert merged.code == 0, merged
    assert (Path(merged.out.strip()) / "model.safetensors").exists()


def test_validation_and_early_stopping_keep_the_best_weights_and_versions_go_on(
    trained: Path, data: Path, llama_runner: Command
) -> None:
    words = ("lora", "train", "--demo", data, "-o", "other", "--root", trained, "--threads", 1, "--device", "cpu")
    first = llama_runner(*words, "--epochs", 1, "--rank", 2, "--gradient-checkpointing")
    assert first.code == 0, first
    stopping = ("--validation", 0.2, "--early-stopping", 1, "--learning-rate", 0.05, "--epochs", 50)
    second = llama_runner(*words, *stopping, "--from", "v1", "--json")
    metrics = json.loads(second.out.splitlines()[-1])["metrics"]
    assert metrics["stopped_early"] is True
    assert metrics["held_out"] == 6
    assert metrics["best_step"] < metrics["steps"]
    log = llama_runner("lora", "log", "other", "--json", "--root", trained).json
    assert [(each["id"], each["parent"], each["start"]) for each in log] == [("v2", "v1", "v1"), ("v1", None, None)]
    settings = json.loads((trained / log[0]["directory"] / "adapter_config.json").read_text())
    options = log[0]["options"]
    assert (settings["r"], settings["lora_alpha"]) == (options["rank"], options["alpha"]) == (2, 4)
    told = llama_runner("lora", "rollback", "other", "--root", trained)
    assert "current v1" in told.out
    for more, text in (
        (("--rank", 4), "rank is 2 in other@v1, whose weights training begins with; got 4"),
        (("--targets", "attention"), "targets is all in other@v1, whose weights training begins with; got q_proj, k_"),
    ):
        refused = llama_runner(*words, *more, "--from", "v1")
        says(refused, ExitCode.USAGE, text)
        assert f"hint: leave out {more[0].strip('-')}, or begin with new weights" in refused.err


def test_a_training_begins_with_a_version_of_the_same_base_only(
    trained: Path, data: Path, tmp_path: Path, llama_runner: Command
) -> None:
    base = tmp_path / "another"
    shutil.copytree(MODEL_DIRECTORY, base)
    config = base / "generation_config.json"
    config.write_text(config.read_text().replace("false", "true"))
    words = ("lora", "train", base, data, "-o", "houses", "--root", trained, "--threads", 1, "--device", "cpu")
    result = llama_runner(*words, "--from", "v1")
    says(result, ExitCode.USAGE, "houses@v1 was trained on demo (tree1:", "), not on another (tree1:")
    assert "hint: name the base of that version" in result.err
    assert {each.id for each in Runner(trained).adapters.log("houses", everything=True)} <= {"v1", "v2"}


def test_wrong_data_is_told_before_anything_is_fetched(root: Path, tmp_path: Path, llama_runner: Command) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "good"}\n{"messages": []}\n')
    result = llama_runner("lora", "train", "nobody/nothing", bad, "-o", "x", "--root", root)
    says(result, ExitCode.USAGE, f"{bad}, line 2: messages is not a list of messages")
    assert "hint: " in result.err


def test_a_base_that_is_no_safetensors_is_told(root: Path, data: Path, llama_runner: Command) -> None:
    gguf = Runner(root).prepare(demo=True).model
    result = llama_runner("lora", "train", gguf, data, "-o", "x", "--root", root)
    says(result, ExitCode.SOURCE, "is a GGUF file, and adapters are trained on safetensors")


def test_what_the_trainer_refuses_is_told_with_a_way_out(trained: Path, data: Path, llama_runner: Command) -> None:
    words = ("--demo", data, "-o", "refused", "--root", trained, "--threads", 1, "--device", "cpu")
    result = llama_runner("lora", "train", *words, "--targets", "no_such_module")
    says(result, ExitCode.STEP, "the adapter refused cannot be trained", "Target modules")
    assert "hint: name modules of this model with --targets, or leave it out" in result.err
    assert "refused" not in [each.name for each in Runner(trained).adapters.list()]


def test_what_cannot_be_learned_from_is_refused(interpreter: Interpreter, data: Path, tmp_path: Path) -> None:
    (tmp_path / "examples.jsonl").write_text("".join(f"{json.dumps(e.to_json())}\n" for e in read_examples(data)))
    job: dict[str, Any] = {
        "model": str(MODEL_DIRECTORY),
        "examples": str(tmp_path / "examples.jsonl"),
        "work": str(tmp_path),
    }
    job |= {"device": "cpu", "checkpoint_s": "30", "options": vars(training_options({}))}
    lines = interpreter.run(REFUSED, PROGRAMS, json.dumps(job), json.dumps([{"length": 8}, {"validation": "0.999"}]))
    refused = [json.loads(line.partition(" ")[2]) for line in lines if line.startswith("refused")]
    assert refused == [
        ["data", "no answer lies within 8 tokens; raise --sequence-length"],
        ["data", "the validation split leaves nothing to train on"],
    ]


def test_the_commands_of_the_page_about_training_work_one_after_the_other(
    trained: Path, data: Path, tmp_path: Path
) -> None:
    page = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8")
    shell = Shell(tmp_path, trained)
    shutil.copyfile(data, tmp_path / "houses.jsonl")
    *blocks, last = re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    said = [shell.run(block) for block in blocks]
    [example] = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert "adapters/houses/houses-" in python(shell, example), "before the adapter is removed"
    shell.run(last)
    assert "is there" in said[0], "the command is that of the fixture"
    assert "10 of 10 are those of the data" in said[0]
    assert (tmp_path / "houses.gguf").exists()
    assert (tmp_path / "peft" / "adapter_config.json").exists()
