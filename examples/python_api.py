"""Serve a model from Python, ask it, and stop it.

`Runner.serve` does what `llama-runner run` does: it prepares the model, starts llama-server at a free port and
returns when it answers. The server ends with the block. A second run of this script only starts the server.
"""

from __future__ import annotations

from llama_runner import LlamaRunnerError, Runner, ServerOptions


def main() -> None:
    """Ask the demo model two questions."""
    runner = Runner()
    steps = runner.plan(demo=True).to_json()["steps"]  # planning changes nothing
    print("steps to run:", ", ".join(step["name"] for step in steps if step["action"] == "run") or "none")
    with runner.serve(demo=True, server=ServerOptions(port=0)) as server:
        reply = server.chat("what is a step?", temperature=0)
        print(reply.text, f"({reply.finish_reason})")
        for piece in server.stream_chat("what is a key?", temperature=0):
            print(piece.text, end="", flush=True)
        print()
    try:
        runner.prepare(gguf_path="missing.gguf")
    except LlamaRunnerError as error:
        print(f"error: {error}\nhint: {error.hint}")


if __name__ == "__main__":
    main()
