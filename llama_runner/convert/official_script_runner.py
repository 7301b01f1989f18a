"""Runs a script of llama.cpp's tree in the Python environment made for it.

    python -I -B official_script_runner.py JOB.json

The job is {"tree", "script", "arguments", "trusted", "pre_tokenizer", "force"}. The model and transformers' home are in
the current directory. Nothing is asked of the network. Unless it is
trusted, no code of the model's own is run: fourteen tokenizers are loaded with ``trust_remote_code=True`` in the tree,
which says no more here than it does in a config.json. ``pre_tokenizer`` names how the tokenizer splits text; with
``force`` false, only where the script does not know better.

This file is run by that environment's Python and imports nothing of ours. Lines that begin with ``official_driver:``
are for the step that runs it.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Any

NETWORK = frozenset(f"socket.{name}" for name in ("connect", "getaddrinfo", "gethostbyname", "sendmsg", "sendto"))


class RefusedOperation(Exception):
    """The conversion attempted a forbidden operation."""


class Guard:
    """Refuses forbidden operations by an audit hook, which later code cannot remove."""

    def __init__(self, *, trusted: bool, folder: str) -> None:
        """Make a guard that refuses code below ``folder`` unless it is ``trusted``."""
        self.met: list[str] = []
        self._trusted, self._folder = trusted, folder

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Check an audit event."""
        if event in NETWORK:
            self.refuse("network")
        elif event == "exec" and not self._trusted:
            where = getattr(arguments[0], "co_filename", "")
            if where.startswith(self._folder):
                self.refuse("code")

    def refuse(self, what: str) -> None:
        """Raise and record the refusal, since the script may catch the exception."""
        self.met.append(what)
        raise RefusedOperation(what)


def decide_trust(guard: Guard, *, trusted: bool) -> None:
    """Make transformers run a model's own code only if it is ``trusted``, whatever the script passes."""
    from transformers import dynamic_module_utils  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

    decide = dynamic_module_utils.resolve_trust_remote_code

    def resolve(asked: object, name: object, has_local: object, has_remote: object, *more: Any, **named: Any) -> bool:  # noqa: ANN401
        if has_remote and not has_local and not trusted and asked is not False:  # else the script does without
            guard.refuse("code")
        return bool(decide(trusted, name, has_local, has_remote, *more, **named))

    def get_class(*_positional: object, **_named: object) -> None:
        guard.refuse("code")

    # both are imported by name into modules that are not loaded yet
    dynamic_module_utils.resolve_trust_remote_code = resolve
    if not trusted:
        dynamic_module_utils.get_class_from_dynamic_module = get_class


def name_pre_tokenizer(name: str, *, force: bool) -> None:
    """Set the name of the pre-tokenizer, in place of the script's or where it recognises none."""
    from conversion.base import TextModel  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

    recognise = TextModel.get_vocab_base_pre

    def recognise_or_take(self: object, tokenizer: object) -> str:
        if force:
            return name
        try:
            return str(recognise(self, tokenizer))
        except NotImplementedError:
            return name

    TextModel.get_vocab_base_pre = recognise_or_take


def main(job: dict[str, Any]) -> None:
    """Run the script; raises its exceptions."""
    tree = Path(job["tree"])
    guard = Guard(trusted=job["trusted"], folder=f"{Path.cwd()}{os.sep}")
    sys.addaudithook(guard)
    sys.path[:0] = [str(tree), str(tree / "gguf-py")]
    import google.protobuf  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: PLC0415

    if find_spec("google.protobuf.runtime_version") is None:
        # sentencepiece's own messages ask for a later protobuf than the script's requirements allow, and work with it
        version: Any = types.ModuleType("google.protobuf.runtime_version")
        version.Domain = types.SimpleNamespace(PUBLIC=0)
        version.ValidateProtobufRuntimeVersion = lambda *_arguments: None
        sys.modules[version.__name__] = google.protobuf.runtime_version = version
    try:
        decide_trust(guard, trusted=job["trusted"])
        if job["pre_tokenizer"]:
            name_pre_tokenizer(job["pre_tokenizer"], force=job["force"])
        script = str(tree / job["script"])
        sys.argv = [script, *job["arguments"]]
        runpy.run_path(script, run_name="__main__")
    except MemoryError:
        sys.stderr.write("official_driver: memory\n")
        raise
    except BaseException as error:
        if "can't allocate memory" in str(error):  # torch's allocator
            sys.stderr.write("official_driver: memory\n")
        for what in sorted(set(guard.met)):
            sys.stderr.write(f"official_driver: {what}\n")
        raise


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
