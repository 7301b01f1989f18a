"""What sessions save, and what saving them costs, with the real llama-server behind the gateway.

    python benchmarks/sessions.py [--root DIR] [--only NAME ...] [--layers 22] [--rounds 4]

``returning``: 20 users on 2 slots; everything is restarted, each returns: tokens that are read again. ``first_token``:
a conversation of 3,000 tokens with a model of 1 B random weights (2 GB, written to a temporary directory): seconds to
the first token after a restart, with and without sessions, in the same run. ``saving``: tokens per second of users who
chat all the time, while sessions of others are saved, relative to the same users at the same gateway while nothing is
to be saved, in alternating turns: the median of pairs, with the saves in those seconds and the CPU time of gateway and
llama-server for each token. The states of the model of 100 M random weights have several megabytes. ``--only saving``
takes about two minutes. Prints one JSON document; the exit status is 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from llama_runner.core.immutable_values import Value
from tests.random_models import write_random_model

if TYPE_CHECKING:
    from collections.abc import Callable

GOALS = {"tokens_read_again": 1, "times_sooner": 10.0, "throughput": 0.95}
STORY = "tell me a story about the old ship and its captain "
USERS = 20
TEXT = "root ::= [a-z ]+"
"""Grammar of what random weights may say: what they say otherwise is no text."""
CONVERSATION = 3000
"""Tokens."""
IDLE_S, WARM_UP_S, TURN_S = 2.0, 1.0, 5.0
"""Seconds after which a session is saved, for which a gateway is asked before it is measured, and while it is."""
LONGEST_SAVING_S = 60.0


class Gateway:
    """``python -m llama_runner.gateway`` with a configuration."""

    def __init__(self, directory: Path, root: Path, text: str) -> None:
        config = directory / "llama-runner.toml"
        config.write_text(text, encoding="utf-8")
        words = ["--config", str(config), "--root", str(root), "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "llama_runner.gateway", *words], stdout=subprocess.PIPE, text=True
        )
        self.events: list[dict[str, Any]] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            if event.get("event") == "gateway_failed":
                raise SystemExit(event["text"])
            if event.get("event") == "gateway_ready":
                self.url = event["urls"][0]
                break
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def of(self, event: str) -> list[dict[str, Any]]:
        """Return the events of a type."""
        return [each for each in self.events if each.get("event") == event]

    def chat(self, messages: list[dict[str, str]], session: str, **more: object) -> tuple[float, dict[str, Any], str]:
        """Stream a chat; return the seconds to its first token, its timings, and its text."""
        where = urlsplit(self.url)
        connection = HTTPConnection(str(where.hostname), where.port, timeout=1200)
        body = {"model": "one", "messages": messages, "stream": True, "temperature": 0, "ignore_eos": True, **more}
        headers = {"Content-Type": "application/json", "X-Session-ID": session}
        timings: dict[str, Any] = {}
        began, first, text = time.perf_counter(), 0.0, ""
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            choice = (event.get("choices") or [{}])[0]
            said = choice.get("delta", {}).get("content")
            if said and not first:
                first = time.perf_counter() - began
            text += said or ""
            timings = event.get("timings", timings)
        connection.close()
        if answer.status != 200 or not timings:  # noqa: PLR2004 - an error
            raise SystemExit(f"the gateway answered {answer.status}: {text}")
        return first, timings, text

    def count_tokens(self, messages: list[dict[str, str]], session: str, **more: object) -> int:
        """Stream a chat with as little work as possible; return how many tokens it has. ``""``: it has no session."""
        where = urlsplit(self.url)
        body = {"model": "one", "messages": messages, "stream": True, "temperature": 0, "ignore_eos": True, **more}
        content = json.dumps(body)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {where.netloc}\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nX-Session-ID: {session}\r\nContent-Length: {len(content)}\r\n\r\n"
        with socket.create_connection((where.hostname, where.port), 1200) as connection:
            connection.sendall((head + content).encode())
            tail = b""
            while data := connection.recv(1 << 16):
                tail = (tail + data)[-4096:]
        counted = re.search(rb'"predicted_n":(\d+)', tail)
        if counted is None:
            raise SystemExit(f"the gateway answered {tail!r}")
        return int(counted[1])

    def stop(self) -> float:
        """End it as the system does; return the seconds that this took."""
        began = time.perf_counter()
        self.process.terminate()
        self.process.wait(120)
        self._reader.join(10)
        return time.perf_counter() - began


def user(text: str) -> dict[str, str]:
    """Return a message."""
    return {"role": "user", "content": text}


def returning(directory: Path, root: Path) -> dict[str, Any]:
    """Measure how many tokens 20 users on 2 slots read again after a restart of everything."""
    text = "[defaults]\nthreads = 1\n[models.one]\ndemo = true\nctx_size = 4096\nsessions = true\n"
    text += "llama = { parallel = 2 }\n"

    def ask(gateway: Gateway, number: int) -> int:
        _, timings, _ = gateway.chat([user(f"I am user {number}. {STORY * 20}")], f"user {number}", max_tokens=16)
        return int(timings["prompt_n"])

    gateway = Gateway(directory, root, text)
    with ThreadPoolExecutor(USERS) as users:
        cold = list(users.map(lambda number: ask(gateway, number), range(USERS)))
        saving = gateway.stop()
        gateway = Gateway(directory, root, text)
        again = list(users.map(lambda number: ask(gateway, number), range(USERS)))
    restored = len(gateway.of("session_restored"))
    gateway.stop()
    return {
        "users": USERS,
        "slots": 2,
        "tokens_read_before": sum(cold),
        "tokens_read_again": max(again),
        "restored": restored,
        "seconds_to_stop": round(saving, 2),
    }


def first_token(directory: Path, root: Path, layers: int) -> dict[str, Any]:
    """Measure the time to the first token of a conversation that returns after a restart."""
    demo = next((root / "models" / "gguf").glob("local__demo__*/model.q4_k_m.gguf"))
    model = write_random_model(
        demo,
        directory / "random-1b.gguf",
        hidden=2048,
        layers=layers,
        heads=32,
        kv_heads=8,
        feed_forward=5632,
        vocabulary=8192,
    )
    found: dict[str, Any] = {"model_bytes": model.stat().st_size, "layers": layers}
    text = f'[models.one]\ngguf_path = "{model}"\nctx_size = 4096\nllama = {{ parallel = 1 }}\n'
    conversation = [user(STORY * (CONVERSATION // 17))]
    seconds = {}
    for name, more in (("with", "sessions = true\n"), ("without", "")):
        gateway = Gateway(directory, root, text + more)
        if name == "with":
            _, timings, answer = gateway.chat(conversation, "a", max_tokens=8, grammar=TEXT)
            found["tokens"] = timings["prompt_n"] + timings["cache_n"]
            conversation += [{"role": "assistant", "content": answer}, user("and then?")]
            found["seconds_to_stop"] = round(gateway.stop(), 2)
            gateway = Gateway(directory, root, text + more)
        gateway.chat([user("hi")], "another", max_tokens=1)  # loads the model
        seconds[name], timings, _ = gateway.chat(conversation, "a", max_tokens=2)
        found[f"tokens_read_{name}"] = timings["prompt_n"]
        for each in gateway.of("session_restored"):
            found["state_bytes"] = each["bytes"]
        gateway.stop()
    model.unlink()
    return {
        **found,
        "seconds_with": round(seconds["with"], 3),
        "seconds_without": round(seconds["without"], 3),
        "times_sooner": round(seconds["without"] / seconds["with"], 1),
    }


class Load(Value):
    """What users ask for all the time while the sessions of others are saved, or not."""

    model: str
    """Lines of its table in the configuration."""
    words: int
    """Of each prompt."""
    tokens: int
    """Of each answer."""
    waiting: int
    """Sessions that wait to be saved when a turn begins: more than the policy saves in it."""
    grammar: str | None = None


def saving(directory: Path, root: Path, rounds: int) -> dict[str, Any]:
    """Measure what users who chat all the time lose while sessions of others are saved, with two models."""
    demo = next((root / "models" / "gguf").glob("local__demo__*/model.q4_k_m.gguf"))
    random = write_random_model(demo, directory / "random-100m.gguf")
    loads = {
        "demo": Load(model="demo = true\n", words=200, tokens=64, waiting=40),
        "random_100m": Load(model=f'gguf_path = "{random}"\n', words=60, tokens=32, waiting=8, grammar=TEXT),
    }
    found = {name: saving_of(directory / name, root, load, rounds) for name, load in loads.items()}
    random.unlink()
    return {**found, "throughput": min(each["throughput"] for each in found.values())}


def saving_of(directory: Path, root: Path, load: Load, rounds: int) -> dict[str, Any]:
    """Measure it with one model and one gateway, in alternating turns: others have sessions, or have none.

    Sessions are saved after two seconds instead of 30, so that a turn begins with all of them waiting. What the policy
    permits while users are answered is the default: a twentieth of the time.
    """
    directory.mkdir()
    text = f"[defaults]\nthreads = 1\n[models.one]\n{load.model}ctx_size = 8192\nllama = {{ parallel = 4 }}\n"
    gateway = Gateway(directory, root, f'{text}sessions = {{ idle = "{IDLE_S:.0f}s" }}\n')
    turns: dict[str, list[Turn]] = {"without": [], "with": []}
    take_turn(gateway, load.replace(waiting=1), "first", saves=False, seconds=0.1)  # loads the model
    for number in range(rounds):
        for name in ("with", "without") if number % 2 else ("without", "with"):
            turns[name].append(take_turn(gateway, load, f"{name} {number}", saves=name == "with"))
    gateway.stop()
    pairs = [with_.tokens / without.tokens for with_, without in zip(turns["with"], turns["without"], strict=True)]
    return {
        "rounds": rounds,
        "seconds_of_a_turn": TURN_S,
        "saved_in_turns": [turn.saved for turn in turns["with"]],
        "waiting_at_the_end_of_turns": [turn.waiting for turn in turns["with"]],
        "saved_in_turns_without": [turn.saved for turn in turns["without"]],
        "milliseconds_of_a_save": rounded_median([each["seconds"] * 1e3 for each in gateway.of("session_saved")]),
        "bytes_of_a_state": rounded_median([each["bytes"] for each in gateway.of("session_saved")]),
        "tokens_per_second": medians(turns, lambda turn: turn.tokens / TURN_S),
        "gateway_cpu_us_per_token": medians(turns, lambda turn: 1e6 * turn.gateway_cpu / turn.tokens),
        "server_cpu_us_per_token": medians(turns, lambda turn: 1e6 * turn.server_cpu / turn.tokens),
        "ratios_of_pairs": sorted(round(ratio, 3) for ratio in pairs),
        "throughput": round(statistics.median(pairs), 3),
    }


def rounded_median(values: list[float]) -> float:
    """Return the median."""
    return round(statistics.median(values), 1)


def medians(turns: dict[str, list[Turn]], value: Callable[[Turn], float]) -> dict[str, float]:
    """Return the median of a value of the turns of each kind."""
    return {name: rounded_median([value(turn) for turn in each]) for name, each in turns.items()}


class Turn(Value):
    """What happened in the seconds that are measured."""

    tokens: float
    gateway_cpu: float
    """Seconds."""
    server_cpu: float
    saved: int
    """Sessions saved."""
    waiting: int
    """Sessions not saved at the end."""


def take_turn(gateway: Gateway, load: Load, name: str, *, saves: bool, seconds: float = TURN_S) -> Turn:
    """Have three users without sessions ask for some seconds; count what is answered in that time.

    Before, others chat once each: with ``saves`` in sessions, which are saved while the three ask, and after it.
    """
    more: dict[str, object] = {"max_tokens": load.tokens}
    more |= {} if load.grammar is None else {"grammar": load.grammar}
    prompt = " ".join((STORY * (load.words // 10)).split()[: load.words])
    us = psutil.Process(gateway.process.pid)
    already = len(gateway.of("session_saved"))

    def leave(number: int) -> int:
        asked = [user(f"{name}, other {number}: {prompt}")]
        return gateway.count_tokens(asked, f"{name} {number}" if saves else "", **{**more, "max_tokens": 1})

    with ThreadPoolExecutor(4) as others:
        assert all(others.map(leave, range(load.waiting)))
    begin = time.monotonic() + WARM_UP_S
    end = begin + seconds

    def talk(who: int) -> float:
        count, number = 0.0, 0
        while (now := time.monotonic()) < end:
            number += 1
            answered = gateway.count_tokens([user(f"{name}, user {who}, {number}: {prompt}")], "", **more)
            after = time.monotonic()
            count += answered * max(0.0, min(after, end) - max(now, begin)) / (after - now)
        return count

    def seen() -> tuple[float, float, int]:
        gateway_cpu = sum(us.cpu_times()[:2])
        server_cpu = sum(sum(child.cpu_times()[:2]) for child in us.children(recursive=True))
        return gateway_cpu, server_cpu, len(gateway.of("session_saved"))

    with ThreadPoolExecutor(3) as users:
        talking = [users.submit(talk, who) for who in range(3)]
        time.sleep(begin - time.monotonic())
        first = seen()
        time.sleep(end - time.monotonic())
        last = seen()
        tokens = sum(each.result() for each in talking)
    expected = load.waiting if saves else 0
    until = time.monotonic() + LONGEST_SAVING_S
    while (left := already + expected - len(gateway.of("session_saved"))) > 0:
        if time.monotonic() > until:
            raise SystemExit(f"{left} sessions were not saved: {gateway.of('session_not_saved')[-1:]}")
        time.sleep(0.05)
    gateway_cpu, server_cpu, saved = (after - before for after, before in zip(last, first, strict=True))
    return Turn(
        tokens=tokens,
        gateway_cpu=gateway_cpu,
        server_cpu=server_cpu,
        saved=int(saved),
        waiting=already + expected - int(last[2]),
    )


def main() -> int:
    """Measure, print, compare with the goals."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, help="root with the programs and the demo model")
    parser.add_argument("--only", nargs="*", choices=["returning", "first_token", "saving"])
    parser.add_argument("--layers", type=int, default=22, help="layers of the large model; 22: 1 B weights")
    parser.add_argument("--rounds", type=int, default=4, help="pairs of turns")
    given = parser.parse_args()
    from llama_runner.store.layout import usable_root  # noqa: PLC0415 - the path is set above

    source = usable_root(given.root)
    wanted = given.only or ["returning", "first_token", "saving"]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="sessions-") as name:
        directory = Path(name)
        root = directory / "root"
        root.mkdir()
        for part in ("bins", "models"):  # sessions of this run are its own
            (root / part).symlink_to(source / part)
        if "returning" in wanted:
            found["returning"] = returning(directory, root)
        if "first_token" in wanted:
            found["first_token"] = first_token(directory, root, given.layers)
        if "saving" in wanted:
            found["saving"] = saving(directory, root, given.rounds)
    missed = [
        goal
        for part in found.values()
        for goal, value in GOALS.items()
        if goal in part and (part[goal] > value if goal == "tokens_read_again" else part[goal] < value)
    ]
    print(json.dumps({**found, "goals": GOALS, "missed": missed, "processors": os.cpu_count()}, indent=2))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
