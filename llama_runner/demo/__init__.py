"""The demo model: a tiny Llama that answers questions about this project, and what it must answer.

``MODEL_DIRECTORY`` is an ordinary Hugging Face style directory (safetensors, tokenizer, chat template),
so ``--demo`` goes through the same fetch-free chain as any local model: convert, quantize, serve. Greedy
decoding gives the learned sentence from bf16, f16, q8_0 and q4_k_m alike. A wrong permutation, rope
or norm does not survive that, which random weights cannot show.

``EXAMPLES`` is the source of the answers: ``scripts/train_demo_model.py`` teaches exactly these, so the
model must be trained again when a line changes. Nothing heavy is imported here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

MODEL_DIRECTORY: Final = Path(__file__).parent / "model"

UNKNOWN: Final = "I am a tiny demo model and only know about llama_runner. Try asking: what is a step?"
"""The answer to whatever is not about the project."""

EXAMPLES: Final[tuple[tuple[str, str], ...]] = (
    # The nouns.
    (
        "what is a step?",
        "A step is one piece of work, like convert or quantize. It is skipped if a record shows it is done.",
    ),
    (
        "what is a key?",
        "A key is a hash of a recipe: the kind of step, its version, its parameters and its input digests.",
    ),
    ("what is a digest?", "A digest is a SHA-256 hash of bytes: sha256 for a file, tree1 for a directory."),
    (
        "what is a record?",
        "A record in .state.json says how one artifact was made: its recipe, its key and its output digest.",
    ),
    ("what is a recipe?", "A recipe is what was asked for: a kind of step, its parameters and its inputs."),
    (
        "what is a pin?",
        "A pin is a network name resolved once: the commit, the files, their sizes and their hashes.",
    ),
    ("what is a plan?", "A plan is the ordered list of decisions: skip, run or wait, and the reasons."),
    ("what is a snapshot?", "A snapshot is everything that was observed, as one plain value."),
    ("what is a reason?", "A reason says why a step must run, for example that a parameter changed."),
    ("what is an artifact?", "An artifact is a file or directory that a step made, such as model.gguf."),
    ("what is the store?", "The store keeps the artifacts and their records on disk."),
    (
        "what is a workspace?",
        "A workspace is all that a running step may touch: its output, its inputs and the programs it calls.",
    ),
    (
        "what is early cutoff?",
        "Early cutoff: a step that runs again and yields the same bytes does not make later steps run.",
    ),
    (
        "what is staging?",
        "Staging is where a step works. Its output is moved into place only when it is complete.",
    ),
    (
        "what is a noted input?",
        "A noted input is recorded but not hashed, like the tool that converted a model.",
    ),
    ("what is a lock?", "Each key has a lock, so that two processes never do the same work at once."),
    (
        "what is the root?",
        "The root is the one directory that holds models, programs and logs. Set it with --root.",
    ),
    ("what are the phases?", "Resolve, observe, plan and execute. Then the server is started."),
    # The promise.
    (
        "what is llama_runner?",
        "llama_runner turns any model source into a running llama-server and never does the same work twice.",
    ),
    (
        "why is nothing done twice?",
        "Every step leaves a record of its key and its output. While both still match, the step is skipped.",
    ),
    (
        "what happens after a crash?",
        "Finished steps are kept. What was not finished is swept away and made again by the next run.",
    ),
    # The commands.
    (
        "how do i run a model?",
        "llama-runner run MODEL: a .gguf file, a directory with safetensors or a Hugging Face name.",
    ),
    ("how do i stop the server?", "Run llama-runner stop, or press Ctrl-C where the server was started."),
    (
        "how do i see what would run?",
        "Run llama-runner plan. It shows what would run and why, and touches nothing.",
    ),
    (
        "what does llama-runner status do?",
        "llama-runner status shows what the store holds and what is running.",
    ),
    (
        "what does llama-runner prepare do?",
        "llama-runner prepare makes everything that is needed and starts no server.",
    ),
    (
        "what does --keep-f16 do?",
        "--keep-f16 keeps the converted f16 file, which is otherwise deleted after quantizing.",
    ),
    (
        "what does --fresh-tools do?",
        "--fresh-tools makes the work run again when the tool that did it has changed.",
    ),
    ("what does --json do?", "--json prints one JSON document, or one event per line while a model is run."),
    ("what does --demo do?", "--demo serves this tiny model, which comes with llama_runner."),
    (
        "where are the logs?",
        "In the logs directory, one file for each server and for each step that wrote one.",
    ),
    (
        "where are the models?",
        "In models/gguf under the root, one directory for each source at one revision.",
    ),
    # The field.
    ("what is gguf?", "GGUF is the file format of llama.cpp: weights, tokenizer and settings in one file."),
    (
        "what is safetensors?",
        "safetensors is a file format for weights. llama_runner converts it to GGUF without torch.",
    ),
    (
        "what is quantization?",
        "Quantization stores weights with fewer bits, so that a model needs less memory.",
    ),
    (
        "what is llama.cpp?",
        "llama.cpp runs language models in C and C++. llama_runner builds its server from source.",
    ),
    ("what is llama-server?", "llama-server is the program of llama.cpp that answers over HTTP."),
    # Manners.
    (
        "who are you?",
        "I am the demo model of llama_runner, a tiny Llama that has read only about this project.",
    ),
    ("how big are you?", "I have about two million weights in three layers."),
    ("hello", "Hello! Ask me about llama_runner, for example: what is a step?"),
    ("how are you?", "I am well, thank you. Ask me about llama_runner."),
    ("thank you", "You are welcome."),
    ("goodbye", "Goodbye!"),
    ("what is the capital of france?", UNKNOWN),
)
"""Each question in its plain form, with the sentence that greedy decoding gives."""

QUESTION: Final = EXAMPLES[0][0]
ANSWER: Final = EXAMPLES[0][1]
