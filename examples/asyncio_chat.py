"""Ask one server several questions at once, from an event loop.

`Runner.serve_async` gives the calls of `Runner.serve` to be awaited. Starting and stopping happen beside the loop, so
other tasks go on. llama-server answers as many requests at once as it has slots; the others wait for their turn.
"""

from __future__ import annotations

import asyncio

from llama_runner import Runner, ServerOptions

QUESTIONS = ("what is a step?", "what is a key?", "what is a pin?")


async def main() -> None:
    """Ask all questions at once, then stream one answer."""
    async with Runner().serve_async(demo=True, server=ServerOptions(port=0, extra=("--parallel", "2"))) as server:
        replies = await asyncio.gather(*(server.chat(question, temperature=0) for question in QUESTIONS))
        for question, reply in zip(QUESTIONS, replies, strict=True):
            print(f"{question} {reply.text}")
        async for piece in server.stream_chat("hello", temperature=0):
            print(piece.text, end="", flush=True)
        print()


if __name__ == "__main__":
    asyncio.run(main())
