"""Load for a server: so many clients at once, each asking again when it is answered. Every answer is timed."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import LlamaRunnerError
from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from llama_runner.client.sync_client import Requests

PROMPT = (
    "A traveller comes to a town by the sea. The houses are white, the boats are blue, and nobody is in a hurry. "
    "In the harbour an old woman mends a net; she looks up and asks where the road from the north leads now. "
    "Tell the story of what the traveller answers, and of what happens on the next day."
)


class Load(Value):
    """What each client asks."""

    prompt: str = PROMPT
    max_tokens: int = 64
    """Of each answer, which is always that long: the end of the text is ignored."""
    requests: int | None = 4
    """For each client; None: as many as fit into ``seconds``."""
    seconds: float | None = None
    """After which no client asks again."""


class Sample(Value):
    """One request. Seconds, counted from the request."""

    first: float | None
    """Until the first token came; None when none did."""
    whole: float
    tokens: int
    prompt_tokens: int
    error: str | None = None
    """The name of what went wrong."""


def send_request(server: Requests, load: Load, number: int) -> Sample:
    """Ask once. What goes wrong is part of the sample."""
    began = time.monotonic()
    first: float | None = None
    # no two prompts begin alike, and nothing is taken from a cache: each is computed
    prompt = f"{number}. {load.prompt}"
    more: dict[str, Any] = {"ignore_eos": True, "cache_prompt": False}
    try:
        with server.stream_chat(prompt, max_tokens=load.max_tokens, temperature=0, more=more) as stream:
            for _ in stream:
                if first is None:
                    first = time.monotonic() - began
            usage = stream.finish().usage
    except LlamaRunnerError as error:
        return Sample(first, time.monotonic() - began, 0, 0, type(error).__name__)
    tokens, prompt_tokens = (0, 0) if usage is None else (usage.completion_tokens, usage.prompt_tokens)
    return Sample(first, time.monotonic() - began, tokens, prompt_tokens)


def run_load(server: Requests, load: Load, clients: int) -> tuple[list[Sample], float]:
    """Ask with so many clients at once; return their samples and how many seconds it took in all."""
    numbers = itertools.count(1)
    samples: list[Sample] = []
    ready = threading.Barrier(clients + 1)
    given_up = threading.Event()

    def client() -> None:
        ready.wait()
        for turn in itertools.count():
            over = load.seconds is not None and time.monotonic() - began >= load.seconds
            if given_up.is_set() or over or turn == load.requests:
                return
            samples.append(send_request(server, load, next(numbers)))

    threads = [threading.Thread(target=client, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    ready.wait()
    try:
        for thread in threads:
            thread.join()
    finally:
        given_up.set()  # after Ctrl-C nobody asks again
    return samples, time.monotonic() - began
