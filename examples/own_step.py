"""Put steps of one's own on top of a model: the answers to a list of questions, and a report on them.

Each step is a value. Its fields say what it depends on; the engine hashes them, runs what is not up to date, and
records what came out. The second run of this script does nothing, another question runs both steps again, and an
answer that stays the same leaves the report alone. `Step` and the engine are not public yet: a later version may
change them.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llama_runner import Runner, ServerOptions
from llama_runner.core.digest import short_hash
from llama_runner.core.plan import Snapshot
from llama_runner.core.step import Node, Place, Step, unkeyed
from llama_runner.engine.executor import Executor
from llama_runner.engine.observer import Observer
from llama_runner.sources.local import PlainFile
from llama_runner.store.artifacts import Store
from llama_runner.store.local_sources import LocalSources

if TYPE_CHECKING:
    from llama_runner.core.digest import Key
    from llama_runner.core.step_interfaces import Workspace


class Answers(Step):
    """The answers of a model to the lines of a file, as JSON."""

    model: Node
    questions: Node
    max_tokens: int = 64
    root: Path | None = unkeyed(None)
    """Where llama-server is; it does not change the answers."""
    kind: ClassVar[str] = "answers"
    resource: ClassVar = "compute"

    def place(self, key: Key | None, digests: Any, places: Any) -> Place | None:
        """A file for each key, so that earlier answers stay."""
        del digests, places
        return None if key is None else Place("answers", f"{short_hash(key)}.json")

    def run(self, workspace: Workspace) -> None:
        """Serve the model and ask."""
        questions = workspace.input("questions").read_text(encoding="utf-8").splitlines()
        with Runner(self.root).serve(gguf_path=workspace.input("model"), server=ServerOptions(port=0)) as server:
            answers = {}
            for number, question in enumerate(questions, 1):
                answers[question] = server.chat(question, temperature=0, max_tokens=self.max_tokens).text
                workspace.progress(number, len(questions), "questions")
        workspace.target.write_text(json.dumps(answers, indent=1), encoding="utf-8")
        workspace.add_facts(questions=len(questions))


class Report(Step):
    """How long the answers are."""

    answers: Node
    kind: ClassVar[str] = "report"

    def place(self, key: Key | None, digests: Any, places: Any) -> Place | None:
        """Beside the answers."""
        del digests, places
        return None if key is None else Place("answers", f"report-{short_hash(key)}.txt")

    def run(self, workspace: Workspace) -> None:
        """Count words."""
        answers = json.loads(workspace.input("answers").read_text(encoding="utf-8"))
        lines = [f"{len(answer.split()):4} words: {question}" for question, answer in answers.items()]
        workspace.target.write_text("\n".join(lines) + "\n", encoding="utf-8")


def run(root: Path, model: Path, questions: Path) -> tuple[list[str], str]:
    """Bring the report up to date; return which steps ran, and its text."""
    store = Store(root, lambda _event: None)
    observer = Observer(store, LocalSources(store, remember=True, inspect=lambda _directory: None))
    report = Report(Answers(PlainFile(model), PlainFile(questions)))
    plan = observer.plan([report], Snapshot())
    outcome = Executor(store, observer, lambda _event: None, lock_timeout=60).execute(plan)
    text = store.path(outcome.places[report]).read_text(encoding="utf-8")
    return [step.kind for step in outcome.seconds], text


def main() -> None:
    """Run twice, change the questions, run again."""
    model = Runner().prepare(demo=True).model
    with tempfile.TemporaryDirectory() as folder:
        questions = Path(folder) / "questions.txt"
        questions.write_text("what is a step?\nwhat is a key?\n", encoding="utf-8")
        for change in ("", "", "what is a pin?\n"):
            questions.write_text(questions.read_text(encoding="utf-8") + change, encoding="utf-8")
            ran, text = run(Path(folder) / "root", model, questions)
            print("ran:", ", ".join(ran) or "nothing")
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
