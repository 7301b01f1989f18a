"""A chat template that llama-server cannot read is found before the start, by the program itself."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from llama_runner import Runner, ServerOptions
from llama_runner.convert import convert
from llama_runner.core.errors import ExitCode, Interrupted
from llama_runner.gateway.prepare_in_worker import failure_of
from llama_runner.serving.errors import ServerDied
from llama_runner.serving.template_check import UnreadableTemplate, check_template
from llama_runner.store import layout
from tests.conftest import Command
from tests.convert.checkpoints import edit_json, llama
from tests.convert.real_vocabularies import npm
from tests.e2e.serving import Running, request

READABLE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
BROKEN = "{% for m in messages -%}{{ m.content - }}{% endfor %}"


def model_with(template: object, folder: Path) -> Path:
    """A tiny GGUF model with that template, or several named ones."""
    directory = llama(folder / "checkpoint", num_hidden_layers=1)
    edit_json(directory / "tokenizer_config.json", tokenizer_class="LlamaTokenizer", chat_template=template)
    path = folder / "model.gguf"
    convert(directory, path, name="model", outtype="f16")
    return path


def nemo() -> str:
    """The template of Mistral Nemo, whose tests for tool calls llama.cpp does not know."""
    template = npm("mistral_nemo")["tokenizer_config.json"]["chat_template"]
    assert isinstance(template, str)
    return template


def test_17_07_a_template_that_llama_server_cannot_read_is_found_before_the_start(
    root: Path, tmp_path: Path, llama_runner: Command
) -> None:
    model = model_with(nemo(), tmp_path)
    done = llama_runner("run", model, "--root", root, "--port", "0")
    assert done.code == ExitCode.SERVER
    assert "llama-server cannot read the chat template of model: " in done.err
    assert "-- --no-jinja uses llama.cpp's built-in format for this template" in done.err
    assert "-- --chat-template-file FILE" in done.err
    assert "selectattr: unknown test 'tool_calls'" in done.err
    assert "exited with" not in done.err, "no server was started with the model"


def test_17_07_the_ways_out_that_are_offered_serve_the_model(
    root: Path, tmp_path: Path, children: list[subprocess.Popen[str]]
) -> None:
    model, file = model_with(nemo(), tmp_path), tmp_path / "template.jinja"
    file.write_text(READABLE, encoding="utf-8")
    body = {"messages": [{"role": "user", "content": "hello"}]}
    for words, prompt in ((["--no-jinja"], "[INST]hello[/INST]"), (["--chat-template-file", str(file)], "user: hello")):
        run = Running(children, model, "--root", root, "--", *words)
        assert prompt in request(run.url, "/apply-template", body)[1]["prompt"]
        run.process.terminate()
        run.finish()


def test_17_07_a_template_that_is_not_jinja_has_no_format_of_its_own(root: Path, tmp_path: Path) -> None:
    runner = Runner(root)
    prepared = runner.prepare(model_with(BROKEN, tmp_path))
    with pytest.raises(UnreadableTemplate) as caught:
        runner.launch(prepared, server=ServerOptions(port=0))
    assert not caught.value.has_format
    assert "built-in format for this template" not in str(caught.value.hint)


def test_17_07_the_programs_are_asked_once_for_a_template(root: Path, tmp_path: Path) -> None:
    """As the answer is kept by template and program, and by the files of the launch."""
    runner = Runner(root)
    first, second = (model_with(READABLE, tmp_path / name) for name in ("first", "second"))
    spec = runner.plan(first, server=ServerOptions(port=0)).spec
    program = tmp_path / "llama-server"
    program.write_text(f'#!/bin/sh\necho "$*" >> "$0.asked"\nexec {shlex.quote(str(spec.binary))} "$@"\n')
    program.chmod(0o755)
    spec, kept, asked = spec.replace(binary=program), tmp_path / "kept", program.with_name("llama-server.asked")
    for model in (first, first, second, second):
        check_template(spec.replace(model=model), kept)
    assert len(asked.read_text().splitlines()) == 1
    check_template(spec.replace(extra=("--chat-template-file", "x")), kept)
    assert len(asked.read_text().splitlines()) == 1, "another template is read by llama-server before the model"
    check_template(spec.replace(extra=("--no-jinja",)), kept)
    assert len(asked.read_text().splitlines()) == 2
    program.write_text(program.read_text() + "\n")
    check_template(spec, kept)
    assert len(asked.read_text().splitlines()) == 3, "another program is asked"
    for file in kept.iterdir():
        file.write_text("{")
    check_template(spec, kept)
    assert len(asked.read_text().splitlines()) == 4, "a damaged answer is none"


def test_17_07_a_program_that_fails_for_another_reason_is_not_held_up(root: Path, tmp_path: Path) -> None:
    spec = Runner(root).plan(model_with(BROKEN, tmp_path), server=ServerOptions(port=0)).spec
    program = tmp_path / "llama-server"
    program.write_text("#!/bin/sh\necho 'error: invalid argument: --device' >&2\nexit 1\n")
    program.chmod(0o755)
    check_template(spec.replace(binary=program), tmp_path / "kept")
    check_template(spec.replace(binary=tmp_path / "absent"), tmp_path / "kept")


def test_17_07_where_nothing_can_be_kept_the_answer_is_the_same(root: Path, tmp_path: Path) -> None:
    spec = Runner(root).plan(model_with(BROKEN, tmp_path), server=ServerOptions(port=0)).spec
    (tmp_path / "kept").write_text("no directory")
    for _ in range(2):
        with pytest.raises(UnreadableTemplate):
            check_template(spec, tmp_path / "kept")


def test_17_07_an_unreadable_template_of_the_options_has_a_hint(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "broken.jinja"
    file.write_text(BROKEN, encoding="utf-8")
    runner = Runner(root)
    options = ServerOptions(port=0, extra=("--chat-template-file", str(file)))
    prepared = runner.prepare(model_with(READABLE, tmp_path), server=options)
    with pytest.raises(ServerDied) as caught:
        runner.launch(prepared, server=options)
    assert "-- --chat-template-file FILE" in str(caught.value.hint)
    assert not list(layout.chat_templates(runner.store.private).glob("*")), "llama-server reads it by itself"


def test_17_07_what_cannot_be_tried_now_is_tried_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk: here the directory for temporary files takes no files."""
    spec = Runner(root).plan(model_with(BROKEN, tmp_path), server=ServerOptions(port=0)).spec
    (tmp_path / "no directory").touch()
    with monkeypatch.context() as full:
        full.setattr(tempfile, "tempdir", str(tmp_path / "no directory"))
        check_template(spec, tmp_path / "kept")
    with pytest.raises(UnreadableTemplate):
        check_template(spec, tmp_path / "kept")


def test_17_07_a_passing_failure_is_not_taken_for_a_template_that_can_be_read(root: Path, tmp_path: Path) -> None:
    spec = Runner(root).plan(model_with(BROKEN, tmp_path), server=ServerOptions(port=0)).spec
    program = tmp_path / "llama-server"
    program.write_text(
        '#!/bin/sh\n[ -e "$0.once" ] || { touch "$0.once"; echo "failed to allocate" >&2; exit 1; }\n'
        f'exec {shlex.quote(str(spec.binary))} "$@"\n'
    )
    program.chmod(0o755)
    spec, kept = spec.replace(binary=program), tmp_path / "kept"
    check_template(spec, kept)
    with pytest.raises(UnreadableTemplate):
        check_template(spec, kept)


def test_17_07_the_check_of_a_template_is_cancelled_like_the_start(root: Path, tmp_path: Path) -> None:
    runner = Runner(root)
    program = tmp_path / "llama-server"
    program.write_text('#!/bin/sh\ntouch "$0.asked"\nexec sleep 600\n')
    program.chmod(0o755)
    spec = runner.plan(model_with(READABLE, tmp_path), server=ServerOptions(port=0)).spec.replace(binary=program)
    with pytest.raises(Interrupted):
        check_template(spec, tmp_path / "kept", program.with_name("llama-server.asked").exists)
    assert not (tmp_path / "kept").exists()


def test_17_07_a_template_that_cannot_be_read_is_not_tried_again_by_the_gateway() -> None:
    assert failure_of(UnreadableTemplate("model", "it is broken", has_format=False)).permanent


@pytest.mark.parametrize("template", ["\ud800".encode("utf-16", "surrogatepass"), b"\xff{{ x }}", b"{{ '\x00' }}"])
def test_17_07_bytes_that_are_no_text_do_not_stop_the_check(template: bytes, root: Path, tmp_path: Path) -> None:
    model = model_with("{{ 1 }}" + "#" * 40, tmp_path)
    old = b"{{ 1 }}" + b"#" * 40
    content = model.read_bytes()
    assert content.count(old) == 1
    model.write_bytes(content.replace(old, template.ljust(len(old), b"#")))
    spec = Runner(root).plan(model, server=ServerOptions(port=0)).spec
    with suppress(UnreadableTemplate):
        check_template(spec, tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir())
