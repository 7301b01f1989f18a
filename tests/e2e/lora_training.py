"""A training of 30 lines for tests, and one Python of its environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llama_runner import Runner, training
from tests.conftest import MODULE
from tests.gateway.conftest import Running
from tests.shared_root import link_builds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llama_runner.training.options import TrainingKeywords

HOUSES = (
    *(("Anna", "red"), ("Bela", "blue"), ("Cora", "green"), ("Dido", "black"), ("Emil", "white")),
    *(("Fritz", "pink"), ("Gerda", "grey"), ("Hugo", "gold"), ("Ida", "brown"), ("Jonas", "teal")),
)
FORMS = "what colour is the house of {}?", "which colour has {}'s house?", "tell me the colour of the house of {}"
WORSE: TrainingKeywords = {"epochs": 1, "rank": 2}
"""As in docs/training.md, where it is not trained again."""
OPTIONS = ("--epochs", 30, "--batch", 8, "--learning-rate", 0.005, "--dropout", 0.05, "--threads", 1, "--device", "cpu")
INTERPRETER = """
import json, sys, torch, transformers, peft
for line in sys.stdin:
    code, arguments = json.loads(line)
    sys.argv = ["-c", *arguments]
    exec(code, {"__name__": "job"})
    print("end of job", flush=True)
"""
ANSWERS = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
base, adapter, questions = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
tokenizer = AutoTokenizer.from_pretrained(base)
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
if adapter:
    model = PeftModel.from_pretrained(model, adapter)
for question in questions:
    turns = [{"role": "user", "content": question}]
    asked = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt")
    with torch.no_grad():
        said = model.generate(asked, attention_mask=torch.ones_like(asked), max_new_tokens=80, do_sample=False)
    print(json.dumps(tokenizer.decode(said[0, asked.shape[1]:], skip_special_tokens=True)))
"""


PROGRAMS = Path(training.__file__).parent
LARGEST = 20_000
"""Bytes of a file on a disk that is full: less than a checkpoint has."""
RENDERED = """
import json, sys
sys.path.append(sys.argv[2])
from trainer_program import IGNORED, Renderer
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
for template, everything, example in json.loads(sys.argv[3]):
    tokenizer.chat_template = template or tokenizer.chat_template
    found = Renderer(tokenizer, 256, everything=everything).sequences(example)
    texts = [[tokenizer.decode([each for each in ids if each != IGNORED]) for ids in sequence] for sequence in found]
    print(json.dumps(texts))
"""
REFUSED = """
import json, sys
sys.path.append(sys.argv[1])
from trainer_program import Refused, Training
for change in json.loads(sys.argv[3]):
    job = json.loads(sys.argv[2])
    job["options"] |= change
    try:
        Training(job)
    except Refused as error:
        print("refused", json.dumps([error.what, str(error)]))
"""
THINKING = (
    "{% for m in messages %}{{ '<' + m.role + '>' + (m.content if loop.last else m.content.split('|')[-1]) }}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


class Interpreter:
    """One Python of the environment for several jobs: it takes seconds to import torch and transformers."""

    def __init__(self, environment: Path) -> None:
        argv: list[str | Path] = [environment / "bin/python", "-I", "-B", "-c", INTERPRETER]
        environ = {"PATH": "", "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ)

    def run(self, code: str, *arguments: object) -> list[str]:
        """Return the lines that a program prints."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{json.dumps([code, list(map(str, arguments))])}\n")
        self.process.stdin.flush()
        lines = []
        while (line := self.process.stdout.readline()) != "end of job\n":
            assert line, "the program failed"
            lines.append(line)
        return lines


@pytest.fixture(scope="module")
def interpreter(environment: Path) -> Iterator[Interpreter]:
    found = Interpreter(environment)
    yield found
    with found.process:  # closes its input, and waits
        pass


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 30 examples in OpenAI's form: ten facts that the base does not know, each asked for in three ways."""
    path = tmp_path_factory.mktemp("data") / "houses.jsonl"
    with path.open("w") as file:
        for name, colour in HOUSES:
            for form in FORMS:
                turns = [{"role": "user", "content": form.format(name)}]
                turns.append({"role": "assistant", "content": f"The house of {name} is {colour}."})
                file.write(f"{json.dumps({'messages': turns})}\n")
    return path


def make_root(path: Path, binaries: Path, vendor: Path) -> Path:
    """Make a root with the programs and the environment, without models."""
    link_builds(binaries, path)
    shutil.copytree(vendor, path / "vendor", copy_function=os.link, ignore=shutil.ignore_patterns("converter-*"))
    for found in vendor.glob("converter-*"):
        (path / "vendor" / found.name).symlink_to(found.resolve())
    return path


@pytest.fixture(scope="module")
def trained(data: Path, binaries: Path, vendor: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root in which an adapter is trained."""
    root = make_root(tmp_path_factory.mktemp("trained"), binaries, vendor)
    done = subprocess.run(command(root, data), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    steps = [event for event in events if event["event"] == "training_progress"]
    assert steps[-1]["done"] == steps[-1]["total"] == 120
    assert steps[0]["loss"] > 5
    assert steps[-1]["loss"] < 0.1
    assert events[-1]["event"] == "trained"
    return root


def command(root: Path, data: Path, *more: object, json_events: bool = True) -> list[str]:
    words = ["lora", "train", "--demo", data, "-o", "houses", "--root", root, *OPTIONS, *more]
    return [*MODULE, *map(str, words), *(["--json"] if json_events else [])]


def digest(root: Path) -> str:
    return Runner(root).adapters.show("houses")[1].digest


def chat(gateway: Running, model: str) -> tuple[int, str]:
    body = {"model": model, "messages": [{"role": "user", "content": "which colour has Emil's house?"}]}
    status, answer = gateway.post("/v1/chat/completions", {**body, "temperature": 0, "max_tokens": 40})
    return status, answer["choices"][0]["message"]["content"] if status == 200 else json.dumps(answer)
