"""Whether there is memory for a server is known before it is started, and an error says what would fit."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from llama_runner.core.errors import ExitCode
from llama_runner.core.events import Event, Noticed, Warned
from llama_runner.serving.errors import DoesNotFit
from llama_runner.serving.llama_server.launch_spec import ServerOptions, spec_of
from llama_runner.serving.llama_server.memory_by_fit_params import (
    HOST,
    Need,
    Question,
    Room,
    free_on_devices,
    lacking,
    larger,
    parse,
    question,
)
from llama_runner.serving.llama_server.memory_check import Memory, files_of
from llama_runner.serving.llama_server.memory_suggestions import largest_model, ways_out

if TYPE_CHECKING:
    from llama_runner.serving.llama_server.launch_spec import ServerSpec

MIB = 1 << 20
TIB_MIB = 1 << 20

FIT_PARAMS = """#!/bin/sh
echo "$*" >> "$0.asked"
case "$*" in *--list-devices*) printf 'Available devices:\\n  CUDA0: A card (9000 MiB, {free} MiB free)\\n'; exit;; esac
layers=all
while [ $# -gt 0 ]; do
  case $1 in -c) context=$2;; -ctk) kind=$2;; -ngl) layers=$2;; nonsense) echo "error: no such type" >&2; exit 1;; esac
  shift
done
[ "$context" = 0 ] && context=1073741824
each={each}; [ -n "$kind" ] && each=$((each / 2))
[ "$layers" = all ] || [ "$layers" = auto ] || gpu=$((layers * 100))
{gpu}
echo "Host 3 $((context * each / 1024)) 5 "
"""
"""Plays llama-fit-params: a model of 3 MiB that was trained for 2**30 tokens, ``each`` MiB of context for 1024 tokens,
100 MiB of each layer on a GPU."""


class Place:
    """A directory with a model and its programs, and what was told."""

    def __init__(self, path: Path, *, each: int = 1, gpu: int = 0, free: int = 5000) -> None:
        self.path = path
        self.events: list[Event] = []
        (path / "model.gguf").write_bytes(b"GGUF")
        card = f'echo "CUDA0 ${{gpu:-{gpu}}} 0 0 "' if gpu else ""
        self.program = path / "llama-fit-params"
        self.program.write_text(FIT_PARAMS.format(each=each, gpu=card, free=free))
        self.program.chmod(0o755)

    def spec(self, **options: Any) -> ServerSpec:
        return spec_of(
            ServerOptions(**{"extra": ("-cram", "0"), **options}),
            binary=self.path / "llama-server",
            model=self.path / "model.gguf",
            alias="a model",
            trained_context=None,
            cores=1,
        )

    def memory(self, **options: Any) -> Memory:
        return Memory(self.spec(**options), self.path / "kept", self.events.append)

    def check(self, **options: Any) -> None:
        self.memory(**options).check()

    @property
    def asked(self) -> list[str]:
        log = self.program.with_name("llama-fit-params.asked")
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_server_that_fits_into_memory_starts_without_a_warning(place: Place) -> None:
    place.check(ctx_size=4096)
    assert place.events == []


def test_what_does_not_fit_is_an_error_that_says_what_is_needed_and_there_and_what_would_fit(tmp_path: Path) -> None:
    place = Place(tmp_path, each=TIB_MIB // 1024)  # a GiB for each 1024 tokens
    with pytest.raises(
        DoesNotFit, match=r"^a model needs 1\.0 TiB of memory, .* are available \(model 3\.0 MiB, "
    ) as caught:
        place.check(ctx_size=1 << 20)
    error = caught.value
    assert error.code == ExitCode.SERVER
    assert error.parts["context"] == (1 << 40) + MIB // 2
    assert [name for name, _, _ in error.lacks] == [HOST]
    assert error.hint is not None
    assert error.hint.endswith("--force-memory goes on")
    context = int(error.ways[0].removeprefix("--ctx-size "))
    place.check(ctx_size=context)


def test_where_a_quantized_cache_would_fit_the_error_says_so(tmp_path: Path) -> None:
    place = Place(tmp_path)
    memory = place.memory(ctx_size=1024, gpu_layers=0)
    lacks = ((HOST, 2, 1),)
    ways = ways_out(memory.question, lacks, lambda asked: asked.type_k == "q8_0")
    assert [way.options for way in ways] == ["-- -ctk q8_0 -ctv q8_0"]
    ways = ways_out(memory.question, lacks, lambda asked: asked.type_k == "q4_0" or asked.slots == "1")
    assert [way.options for way in ways] == ["-- -ctk q4_0 -ctv q4_0", "-- -np 1"]


def test_with_force_memory_it_goes_on_and_says_what_is_missing(tmp_path: Path) -> None:
    place = Place(tmp_path, each=TIB_MIB)
    place.check(ctx_size=4096, force_memory=True)
    (event,) = place.events
    assert isinstance(event, Warned)
    assert event.text.startswith("a model needs 4.0 TiB of memory")


def test_llama_fit_params_is_asked_once_for_the_same_model_build_and_options(place: Place) -> None:
    place.check(ctx_size=4096)
    once = len(place.asked)
    place.check(ctx_size=4096, port=1, threads=1, canary=True)
    assert len(place.asked) == once > 0
    place.check(ctx_size=8192)
    assert len(place.asked) == 2 * once
    (place.path / "model.gguf").write_bytes(b"GGUF, another")
    place.check(ctx_size=4096)
    assert len(place.asked) == 3 * once
    place.program.write_text(place.program.read_text() + "\n")
    place.check(ctx_size=4096)
    assert len(place.asked) == 4 * once


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"devices": [], "host": ["a", 1, 2], "beside": 0, "resident": 0}'])
def test_a_damaged_memory_file_is_ignored(place: Place, text: str) -> None:
    place.check()
    (kept,) = (place.path / "kept").iterdir()
    kept.write_text(text)
    place.check()
    assert json.loads(kept.read_text())["host"][0] == 3 * MIB


def test_in_a_read_only_store_llama_fit_params_runs_at_each_start(place: Place) -> None:
    (place.path / "kept").write_text("not a directory")
    place.check()
    place.check()
    assert place.events == []


class Process:
    """A server that runs, as far as its memory goes: this process."""

    pid = os.getpid()


def test_the_measured_memory_of_a_server_is_used_at_the_next_start(place: Place) -> None:
    place.memory().remember(Process())  # type: ignore[type-var]
    assert not (place.path / "kept").exists(), "nothing is known of it"
    place.check()
    place.memory().remember(Process())  # type: ignore[type-var]
    (kept,) = (place.path / "kept").iterdir()
    known = json.loads(kept.read_text())
    assert known["resident"] > MIB
    kept.write_text(json.dumps(known | {"resident": 1 << 50}))
    with pytest.raises(DoesNotFit, match=r"beside 1024\.0 TiB"):
        place.check()


def test_without_llama_fit_params_memory_is_not_checked_which_is_told(place: Place) -> None:
    place.program.unlink()
    place.check(ctx_size=1 << 40)
    assert place.events == [Noticed("no_memory_check", f"memory is not checked: {place.program} is not there")]


def test_memory_is_not_checked_where_llama_fit_params_gives_no_answer(place: Place) -> None:
    place.check(extra=("-ctk", "nonsense"))
    place.program.write_text("#!/bin/sh\necho something else\n")
    place.check()
    assert [str(event).count("says nothing of this model with these options") for event in place.events] == [1, 1]


def test_a_draft_model_and_a_projector_count_with_their_files(place: Place) -> None:
    (place.path / "draft.gguf").write_bytes(bytes(70_000))
    spec = place.spec(extra=("-md", str(place.path / "draft.gguf"))).replace(projector=place.path / "model.gguf")
    memory = Memory(spec, place.path / "kept", place.events.append)
    need = memory.ask(memory.question)
    assert need is not None
    assert need.beside == 70_000 + len(b"GGUF")


def test_old_memory_estimates_are_removed(place: Place) -> None:
    (place.path / "kept").mkdir()
    for number in range(300):
        (place.path / "kept" / f"{number}.json").write_text("")
        os.utime(place.path / "kept" / f"{number}.json", (number, number))
    place.check()
    left = {path.stem for path in (place.path / "kept").iterdir()}
    assert len(left) == 200
    assert {"299", "101"} < left


def test_layers_that_a_gpu_has_no_room_for_are_moved_to_the_host_unless_they_were_asked_for(tmp_path: Path) -> None:
    place = Place(tmp_path, gpu=6000)
    place.check()
    with pytest.raises(DoesNotFit, match=r"^a model needs 5\.9 GiB on CUDA0, 4\.9 GiB are free") as caught:
        place.check(gpu_layers="all")
    assert "--gpu-layers auto" in caught.value.ways
    with pytest.raises(DoesNotFit, match="CUDA0") as caught:
        place.check(gpu_layers=80, extra=("-ts", "1"))
    assert "--gpu-layers 49" in caught.value.ways  # and half a MiB for computing


def test_a_context_left_to_llama_server_is_made_to_fit_a_gpu_by_it(tmp_path: Path) -> None:
    place = Place(tmp_path, gpu=6000)
    place.check(ctx_size="auto")
    assert place.events == []
    with pytest.raises(DoesNotFit):
        place.check(ctx_size="auto", gpu_layers="all")


def test_a_context_left_to_llama_server_without_a_gpu_is_what_the_model_was_trained_for(place: Place) -> None:
    with pytest.raises(DoesNotFit, match=r"context 1\.0 TiB"):
        place.check(ctx_size="auto")


def test_a_cache_of_prompts_that_may_outgrow_memory_is_told_of_once(place: Place) -> None:
    place.check(extra=("--cache-ram", str(1 << 30)))
    (event,) = place.events
    assert isinstance(event, Noticed)
    assert event.what == "prompt_cache"
    assert event.text.startswith("llama-server keeps prompts in up to 1024.0 TiB of memory as they come, ")
    place.check(extra=("--cache-ram", str(1 << 30)))
    for words in (("-cram", "0"), ("-cram", "1"), ("-cram", "-1", "--embeddings")):
        place.check(extra=words)
    assert place.events == [event]
    place.check(extra=("-cram", "-1"))
    assert "prompts without a limit of memory" in str(place.events[1])


def test_a_context_of_billions_costs_no_more_to_refuse(tmp_path: Path) -> None:
    place = Place(tmp_path, each=4)
    with pytest.raises(DoesNotFit, match=r"context 37\.3 TiB"):
        place.check(ctx_size=10_000_000_000)
    assert max(int(line.split("-c ")[1].split()[0]) for line in place.asked) <= 1 << 20


def test_numbers_are_rounded_to_the_middle_and_weights_that_are_left_out_are_on_the_host() -> None:
    half = MIB // 2
    assert parse("Host 7 6 8 \n", 0) == Need((), (7 * MIB, 6 * MIB + half, 8 * MIB + half))
    assert parse("Host 0 0 5 \n", 90 * MIB) == Need((), (90 * MIB, 0, 5 * MIB + half))
    said = "some words\nCUDA0 60 20 3 \nHost 1 0 5 \n"
    assert parse(said, 90 * MIB) == Need(
        (("CUDA0", 60 * MIB, 20 * MIB + half, 3 * MIB + half),), (30 * MIB, 0, 5 * MIB + half)
    )


@pytest.mark.parametrize("said", ["", "Host", "CUDA0 1 2 3\n", "Host 1 2\n", "Host a b c"])
def test_other_output_of_llama_fit_params_is_ignored(said: str) -> None:
    assert parse(said, 0) is None


def test_of_two_answers_the_larger_numbers_count() -> None:
    a, b = Need((("G", 1, 5, 2),), (9, 1, 1), 7), Need((("G", 1, 2, 4),), (9, 2, 0), 7)
    assert larger([a, b]) == larger([b, a]) == Need((("G", 1, 5, 4),), (9, 2, 1), 7)


def test_what_a_gpu_has_no_room_for_must_have_room_on_the_host() -> None:
    need = Need((("G", 70, 20, 10), ("unknown", 9, 9, 9)), (5, 5, 5))
    there = Room(54, (("G", 60),))
    assert lacking(need, there, spills=True) == ((HOST, 55, 54),)
    assert lacking(need, there, spills=False) == (("G", 100, 60),)
    assert lacking(need, Room(14, (("G", 60),)), spills=False) == (("G", 100, 60), (HOST, 15, 14))
    assert lacking(need, Room(55, (("G", 60),)), spills=True) == ()


def test_the_free_memory_of_gpus_is_read() -> None:
    said = (
        "Available devices:\n  CUDA0: NVIDIA H200 (143167 MiB, 142546 MiB free)\n"
        "  Vulkan1: AMD (RADV) Radeon (16 MiB, 7 MiB free)\n  BLAS: OpenBLAS (0 MiB, 0 MiB free)\n"
    )
    assert free_on_devices(said) == (("CUDA0", 142546 * MIB), ("Vulkan1", 7 * MIB))
    assert free_on_devices("Available devices:\n") == ()


def test_what_is_asked_is_what_decides_about_memory(place: Place) -> None:
    extra = ("--cache_type_k", "q8_0", "-ctv", "q4_0", "--temp", "0", "-nkvo", "-b", "64", "--metrics", "-c", "512")
    asked = question(place.spec(ctx_size=9, gpu_layers=3, extra=extra), {})
    words = ["-fitp", "on", "-c", "512", "-ngl", "3", "-ctk", "q8_0", "-ctv", "q4_0"]
    words += ["--no-kv-offload", "--batch-size", "64", "-np"]
    assert asked.argvs() == [[*words, "1"], [*words, "4"]]


def test_slots_of_their_own_are_asked_about_once() -> None:
    assert [words[-2:] for words in Question(slots="3").argvs()] == [["-np", "3"]]
    assert [words[-2:] for words in Question(slots="3", unified=True).argvs()] == [["-np", "1"], ["-np", "3"]]


def test_all_files_of_a_model_count(tmp_path: Path) -> None:
    names = [f"m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    assert files_of(tmp_path / names[0]) == [tmp_path / name for name in names]
    assert files_of(tmp_path / "m.gguf") == [tmp_path / "m.gguf"]


@given(
    model=some.integers(0, 1 << 36),
    each=some.integers(0, 1 << 20),
    base=some.integers(0, 1 << 30),
    slot=some.integers(0, 1 << 30),
    room=some.integers(0, 1 << 40),
    card=some.integers(0, 1 << 38),
    layers=some.sampled_from([None, "all", "30"]),
    context=some.integers(1, 1 << 33),
)
def test_whatever_is_suggested_does_fit(
    *, model: int, each: int, base: int, slot: int, room: int, card: int, layers: str | None, context: int
) -> None:
    there = Room(room, (("G", card),))

    def need(asked: Question) -> Need:
        size = {None: 4, "q8_0": 2, "q4_0": 1}[asked.type_k]
        count = 40 if asked.gpu_layers in (None, "all", "auto") else min(40, int(asked.gpu_layers))
        on_card = model * count // 40
        states = slot * int(asked.slots or 4)
        return Need((("G", on_card, int(asked.ctx_size) * each * size, 1),), (model - on_card, states, base))

    def fits(asked: Question) -> bool:
        return not lacking(need(asked), there, spills=asked.spills)

    asked = Question(ctx_size=str(context), gpu_layers=layers)
    lacks = lacking(need(asked), there, spills=asked.spills)
    ways = {way.options.split()[-2]: way for way in ways_out(asked, lacks, fits)} if lacks else {}
    assert all(fits(way.question) for way in ways.values())
    smallest = asked.replace(ctx_size="256")
    if lacks and context > 256 and fits(smallest):
        found = int(ways["--ctx-size"].question.ctx_size)
        assert not fits(asked.replace(ctx_size=str(int(found * 1.06) + 512))), "a much larger one would fit too"
    if lacks and (size := largest_model(need(asked), lacks)) is not None:
        assert 0 <= size < model
