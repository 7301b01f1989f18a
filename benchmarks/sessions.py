"""What sessions save, and what saving them costs, with the real llama-server behind the gateway.

    python benchmarks/sessions.py [--root DIR] [--only NAME ...] [--layers 22] [--rounds 8]

``returning``: 20 users on 2 slots; everything is restarted, each returns: tokens that are read again. ``first_token``:
a conversation of 3,000 tokens with a model of 1 B random weights (2 GB, written to a temporary directory): seconds to
the first token after a restart, with and without sessions, in the same run. ``saving``: tokens per second of users who
chat all the time, while sessions of others become idle and are saved, relative to a gateway without sessions, in
alternating turns: the median of pairs, with the CPU time of gateway and llama-server for each token. With the demo
model the gateway is a tenth of the load; the model of 100 M random weights has states of several megabytes. Prints one
JSON document; the exit status is 1 where a goal is missed.
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
WARM_UP_S, TURN_S = 2.0, 6.0
"""Seconds for which a gateway is asked before it is measured, and while it is."""
LONGEST_DRAIN_S = 300.0


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
        """Stream a chat with as little work as possible; return how many tokens it has."""
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
    """What users ask for all the time. Each chat is a session of its own, so there is always one to be saved."""

    model: str
    """Lines of its table in the configuration."""
    words: int
    """Of each prompt."""
    tokens: int
    """Of each answer."""
    grammar: str | None = None


def saving(directory: Path, root: Path, rounds: int) -> dict[str, Any]:
    """Measure what users who chat all the time lose while sessions of others are saved, with two models."""
    demo = next((root / "models" / "gguf").glob("local__demo__*/model.q4_k_m.gguf"))
    random = write_random_model(demo, directory / "random-100m.gguf")
    loads = {
        "demo": Load(model="demo = true\n", words=200, tokens=64),
        "random_100m": Load(model=f'gguf_path = "{random}"\n', words=300, tokens=32, grammar=TEXT),
    }
    found = {name: saving_of(directory / name, root, load, rounds) for name, load in loads.items()}
    random.unlink()
    return {**found, "throughput": min(each["throughput"] for each in found.values())}


def saving_of(directory: Path, root: Path, load: Load, rounds: int) -> dict[str, Any]:
    """Measure it with one model. Two gateways run, one that saves and one without sessions; they are asked in turns.

    Sessions are saved after a second instead of 30, so as many wait to be saved as the policy allows at any time. A
    turn begins when everything of the turn before it is saved.
    """
    text = f"[defaults]\nthreads = 1\n[models.one]\n{load.model}ctx_size = 8192\nllama = {{ parallel = 4 }}\n"
    gateways = {}
    for name, more in (("without", ""), ("with", 'sessions = { idle = "1s" }\n')):
        (directory / name).mkdir(parents=True)
        gateways[name] = Gateway(directory / name, root, text + more)
    turns: dict[str, list[Turn]] = {name: [] for name in gateways}
    for number in range(-1, rounds):
        for name in ("without", "with") if number % 2 else ("with", "without"):
            turn = take_turn(gateways[name], load, f"{name} {number}")
            if number >= 0:  # the first loads the model
                turns[name].append(turn)
    for gateway in gateways.values():
        gateway.stop()
    bytes_saved = [each["bytes"] for each in gateways["with"].of("session_saved")]
    pairs = list(zip(turns["with"], turns["without"], strict=True))
    return {
        "rounds": rounds,
        "seconds_of_a_turn": TURN_S,
        "bytes_of_a_state": round(statistics.median(bytes_saved)),
        "saved_per_second": round(sum(turn.saved for turn in turns["with"]) / rounds / TURN_S, 2),
        "tokens_per_second": medians(turns, lambda turn: turn.tokens / TURN_S),
        "gateway_cpu_us_per_token": medians(turns, lambda turn: 1e6 * turn.gateway_cpu / turn.tokens),
        "server_cpu_us_per_token": medians(turns, lambda turn: 1e6 * turn.server_cpu / turn.tokens),
        "ratios_of_pairs": sorted(round(with_.tokens / without.tokens, 3) for with_, without in pairs),
        "throughput": round(statistics.median(with_.tokens / without.tokens for with_, without in pairs), 3),
    }


def medians(turns: dict[str, list[Turn]], value: Callable[[Turn], float]) -> dict[str, float]:
    """Return the median of a value of the turns of each gateway."""
    return {name: round(statistics.median(map(value, each)), 1) for name, each in turns.items()}


class Turn(Value):
    """What happened while one gateway was asked."""

    tokens: float
    gateway_cpu: float
    """Seconds."""
    server_cpu: float
    saved: int
    """Sessions saved."""


def take_turn(gateway: Gateway, load: Load, name: str) -> Turn:
    """Have three users ask for some seconds; count what is answered in that time."""
    grammar = {} if load.grammar is None else {"grammar": load.grammar}
    prompt = " ".join((STORY * (load.words // 10)).split()[: load.words])
    us = psutil.Process(gateway.process.pid)
    begin = time.monotonic() + WARM_UP_S
    end = begin + TURN_S

    def talk(who: int) -> tuple[float, int]:
        count, number = 0.0, 0
        while (now := time.monotonic()) < end:
            number += 1
            asked = [user(f"{name}, user {who}, question {number}: {prompt}")]
            answered = gateway.count_tokens(asked, f"{name} {who} {number}", max_tokens=load.tokens, **grammar)
            after = time.monotonic()
            count += answered * max(0.0, min(after, end) - max(now, begin)) / (after - now)
        return count, number

    def seen() -> tuple[float, float, int]:
        gateway_cpu = sum(us.cpu_times()[:2])
        server_cpu = sum(sum(child.cpu_times()[:2]) for child in us.children(recursive=True))
        return gateway_cpu, server_cpu, len(gateway.of("session_saved"))

    before = len(gateway.of("session_saved"))
    with ThreadPoolExecutor(3) as users:
        talking = [users.submit(talk, who) for who in range(3)]
        time.sleep(begin - time.monotonic())
        first = seen()
        time.sleep(end - time.monotonic())
        last = seen()
        answered = [each.result() for each in talking]
    tokens, chats = sum(count for count, _ in answered), sum(number for _, number in answered)
    drained = time.monotonic() + LONGEST_DRAIN_S
    while name.startswith("with ") and len(gateway.of("session_saved")) - before < chats:
        if time.monotonic() > drained:
            raise SystemExit(f"{chats} sessions were not saved: {gateway.of('session_not_saved')[-1:]}")
        time.sleep(0.1)
    gateway_cpu, server_cpu, saved = (after - before for after, before in zip(last, first, strict=True))
    return Turn(tokens=tokens, gateway_cpu=gateway_cpu, server_cpu=server_cpu, saved=int(saved))


def main() -> int:
    """Measure, print, compare with the goals."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, help="root with the programs and the demo model")
    parser.add_argument("--only", nargs="*", choices=["returning", "first_token", "saving"])
    parser.add_argument("--layers", type=int, default=22, help="layers of the large model; 22: 1 B weights")
    parser.add_argument("--rounds", type=int, default=8)
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
