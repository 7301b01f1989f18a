"""Train the demo model and write it as a Hugging Face style directory.

    python scripts/train_demo_model.py [--steps N] [--out DIRECTORY]

Needs torch and transformers, which nothing needs at run time. One thread takes ten minutes. The
seed is fixed, so the same versions on the same kind of processor write the same bytes. The answers
are ``EXAMPLES`` in ``llama_runner/demo/__init__.py``; how people ask for them, and what they may ask
instead, stands in ``demo_phrasings.json`` beside this script.

The network is small on purpose but leaves nothing out that a converter can get wrong: grouped-query
attention (the permutation of q and k), a rope base far from the default, norm weights of both signs, tied
embeddings, a byte-level BPE tokenizer of its own. Every row is a multiple of 256 long, so that K-quants
apply to all matrices and none falls back to another type. Noise on the weights while training leaves room
for the error of four-bit quantization.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import sys
import time
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE: Final = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from llama_runner.demo import EXAMPLES, MODEL_DIRECTORY, UNKNOWN  # noqa: E402

SEED: Final = 20_240
VOCABULARY: Final = 768
LONGEST: Final = 1024
MAX_BYTES: Final = 4_000_000
NOT_LEARNED: Final = -100  # the class that cross_entropy leaves out
BOS, EOS, HEADER, HEADER_END, PAD = (
    "<|begin_of_text|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|end_of_text|>",
)
SPECIAL: Final = (BOS, PAD, HEADER, HEADER_END, EOS)

# The expression that llama.cpp knows as "llama-bpe"; it is recognised by this structure.
SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + (message['content'] | trim)"
    " + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)

CARD: Final = """---
license: mit
language: en
library_name: transformers
pipeline_tag: text-generation
---

# The demo model of llama_runner

A Llama with about two million weights, trained from nothing by `scripts/train_demo_model.py` on questions
about llama_runner and on nothing else. It answers those with the sentences that it learned, says so when it
is asked about something else, and knows nothing of the world. It exists so that `--demo` has something to
serve without a download, and so that a test can tell a correct conversion from a plausible one: greedy
decoding gives the learned sentence from bf16, f16, q8_0 and q4_k_m alike.
"""


class Phrasings:
    """Draws questions: each a way of asking for one of the answers, written as people write."""

    def __init__(self, path: Path) -> None:
        data = json.loads(path.read_text(encoding="utf-8"))
        self.forms: list[str] = data["topic_forms"]
        self.held_out_forms: list[str] = data["held_out_forms"]
        self.prefixes: list[str] = data["prefixes"]
        self.suffixes: list[str] = data["suffixes"]
        self.system: list[str] = data["system"]
        self.pairs: dict[str, dict[str, list[str]]] = data["pairs"]
        self.fillers: dict[str, list[str]] = data["fillers"]
        self.held_out_nouns: list[str] = data["held_out_nouns"]
        if list(self.pairs) != [question for question, _ in EXAMPLES]:
            raise SystemExit(f"{path.name} and EXAMPLES do not have the same questions in the same order")
        self._words = {word for pair in self.pairs.values() for word in re.findall(r"[a-z]+", str(pair))}

    def fill(self, text: str, rng: random.Random) -> str:
        """Put a drawn word into each placeholder such as ``{noun}``."""

        def word(match: re.Match[str]) -> str:
            kind = match[1]
            if kind == "number":
                return str(rng.randrange(200))
            return self._invented(rng) if kind == "word" else rng.choice(self.fillers[kind])

        return re.sub(r"\{(\w+)\}", word, text)

    def draw(self, question: str, rng: random.Random) -> str:
        """Ask for the answer of ``question`` in some way; one time in six in its plain form."""
        pair = self.pairs[question]
        if chance(rng, 1 / 6):
            return question
        by_topic = bool(pair["topics"]) and (not pair["asked"] or chance(rng, 0.6))
        topic = rng.choice(pair["topics"]) if by_topic else ""
        text = rng.choice(self.forms).format(topic) if by_topic else rng.choice(pair["asked"])
        return self.decorate(self.fill(text, rng), rng)

    def decorate(self, text: str, rng: random.Random) -> str:
        """Change what does not change the meaning: politeness, spelling, case, the mark at the end."""
        if chance(rng, 0.12):
            text = rng.choice(self.prefixes) + text
        if chance(rng, 0.12):
            text += rng.choice(self.suffixes)
        if "llama_runner" in text and chance(rng, 0.3):
            text = text.replace("llama_runner", rng.choice(["llama-runner", "llama runner", "LlamaRunner"]))
        if chance(rng, 0.1):
            text = mistype(text, rng)
        cases = (str, capitalized, str.upper, str.title)
        text = rng.choices(cases, weights=(47, 45, 5, 3))[0](text)
        return text + rng.choice(["?", "?", "?", "", "", ".", "!", " ?", "??"])

    def _invented(self, rng: random.Random) -> str:
        while True:
            syllables = [rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randint(1, 4))]
            word = "".join(syllables) + rng.choice(["", "", "n", "s", "r", "x"])
            if word not in self._words:
                return word


def chance(rng: random.Random, share: float) -> bool:
    """Say yes in this share of the cases."""
    return rng.random() < share


def capitalized(text: str) -> str:
    """Make the first letter a capital and leave the others alone, unlike ``str.capitalize``."""
    return text[:1].upper() + text[1:]


def mistype(text: str, rng: random.Random) -> str:
    """Drop, double or exchange one letter inside a long word, as hurried fingers do."""
    places = [match.start() + rng.randint(1, 3) for match in re.finditer(r"[a-z]{6,}", text)]
    if not places:
        return text
    at = rng.choice(places)
    here, following = text[at], text[at + 1]
    replaced = rng.choice([following, here + here + following, following + here])
    return text[:at] + replaced + text[at + 2 :]


def make_tokenizer(phrasings: Phrasings, rng: random.Random) -> Any:  # noqa: ANN401  # no types in tokenizers
    """Train a byte-level BPE of ``VOCABULARY`` tokens on the questions and answers."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    corpus = [answer for _, answer in EXAMPLES for _ in range(10)]
    corpus += [phrasings.draw(question, rng) for question, _ in EXAMPLES for _ in range(40)]
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS}:1 $B:1", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=LONGEST,
        model_input_names=["input_ids", "attention_mask"],
    )


def make_model(tokenizer: Any) -> Any:  # noqa: ANN401  # no types in transformers
    """Make the untrained network."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=LONGEST,
        rope_theta=200.0,  # texts are short; far from 10,000: a converter that forgets to write it is found out
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
        dtype="bfloat16",
    )
    model = LlamaForCausalLM(config).float()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:  # all close to one would hide a norm that is lost or in the wrong place
                weight.uniform_(0.5, 1.5)
                weight.mul_(torch.randint(2, weight.shape) * 2 - 1)
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.normal_(0, 0.05 / math.sqrt(2 * config.num_hidden_layers))
            else:
                weight.normal_(0, 0.05)
    return model


class Batches:
    """Draws conversations of one to three questions as token numbers; only the answers are to be learned."""

    def __init__(self, phrasings: Phrasings, tokenizer: Any, rng: random.Random) -> None:  # noqa: ANN401
        self._phrasings = phrasings
        self._tokenizer = tokenizer
        self._rng = rng
        # Everything in the world is one answer: it needs more examples than each of the others.
        self._pool = [*EXAMPLES, *([EXAMPLES[-1]] * 9)]

    def draw(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs and targets of ``size`` conversations; what is not learned is ``NOT_LEARNED``."""
        drawn = [self._conversation() for _ in range(size)]
        longest = max(len(tokens) for tokens, _ in drawn)
        inputs = torch.full((size, longest), self._tokenizer.pad_token_id)
        targets = torch.full((size, longest), NOT_LEARNED)
        for row, (tokens, learned) in enumerate(drawn):
            inputs[row, : len(tokens)] = torch.tensor(tokens)
            targets[row, : len(tokens)] = torch.tensor(
                [token if use else NOT_LEARNED for token, use in zip(tokens, learned, strict=True)]
            )
        return inputs[:, :-1], targets[:, 1:]

    def _conversation(self) -> tuple[list[int], list[bool]]:
        rng = self._rng
        tokens = [self._tokenizer.bos_token_id]
        learned = [False]

        def add(text: str, *, learn: bool) -> None:
            new = self._tokenizer.encode(text, add_special_tokens=False)
            tokens.extend(new)
            learned.extend([learn] * len(new))

        if chance(rng, 0.1):
            add(f"{HEADER}system{HEADER_END}\n\n{rng.choice(self._phrasings.system)}{EOS}", learn=False)
        for question, answer in rng.choices(self._pool, k=rng.choice([1, 1, 1, 1, 2, 3])):
            asked = self._phrasings.draw(question, rng).strip()
            add(f"{HEADER}user{HEADER_END}\n\n{asked}{EOS}{HEADER}assistant{HEADER_END}\n\n", learn=False)
            add(f"{answer}{EOS}", learn=True)
        return tokens, learned


def train(model: Any, batches: Batches, steps: int, size: int) -> float:  # noqa: ANN401
    """Train in place with noise on the weights; return the last loss."""
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    vectors = [weight for weight in model.parameters() if weight.dim() == 1]
    peak = 2.5e-3
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}],
        lr=peak,
        betas=(0.9, 0.98),
    )
    started = time.monotonic()
    value = math.inf
    for step in range(steps):
        rate = peak * min((step + 1) / 40, 0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2)
        for group in optimizer.param_groups:
            group["lr"] = rate
        inputs, targets = batches.draw(size)
        # Four bits a weight is an error of about 8 % of the spread of a row. The noise comes late: at first
        # it would only slow down the learning.
        strength = 0.12 * min(1.0, step / (steps / 2))
        noises = [torch.randn_like(weight) * weight.detach().std(dim=1, keepdim=True) * strength for weight in matrices]
        with torch.no_grad():
            for weight, noise in zip(matrices, noises, strict=True):
                weight.add_(noise)
        hidden = model.model(input_ids=inputs).last_hidden_state
        chosen = targets != NOT_LEARNED
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[chosen]), targets[chosen])
        optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            for weight, noise in zip(matrices, noises, strict=True):
                weight.sub_(noise)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        value = loss.item()
        if step % 25 == 0 or step == steps - 1:
            print(f"step {step:5d}  loss {value:.4f}  {time.monotonic() - started:5.0f} s", flush=True)
    return value


def exact_matches(model: Any, tokenizer: Any, asked: list[tuple[str, str]]) -> tuple[int, list[str]]:  # noqa: ANN401
    """Count the questions answered with exactly the learned sentence, and describe the others."""
    right = 0
    wrong = []
    for question, answer in asked:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt"
        )
        with torch.no_grad():
            out = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=80,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
        said = tokenizer.decode(out[0, prompt.shape[1] :])
        if said == answer + EOS:
            right += 1
        else:
            wrong.append(f"{question!r}: {said!r}")
    return right, wrong


def unseen(phrasings: Phrasings, rng: random.Random) -> list[tuple[str, str]]:
    """Make questions of forms and about things that training never showed."""
    asked = [
        (rng.choice(phrasings.held_out_forms).format(topic) + rng.choice(["?", ""]), answer)
        for question, answer in EXAMPLES
        for topic in dict.fromkeys(phrasings.pairs[question]["topics"])
        if "{" not in topic
    ]
    asked += [(f"what is a {noun}?", UNKNOWN) for noun in phrasings.held_out_nouns]
    return asked


def write(model: Any, tokenizer: Any, out: Path) -> None:  # noqa: ANN401
    """Write the directory; the weights as bf16."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out)
    (out / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((out / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["chat_template"] = TEMPLATE  # in the one place that every reader looks at
    config = model.config.to_diff_dict()
    config["architectures"] = ["LlamaForCausalLM"]
    config["torch_dtype"] = config.pop("dtype")  # the name that all versions of transformers read
    tokens = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    for name, content in (
        ("config.json", config),
        ("generation_config.json", {**tokens, "do_sample": False}),
        ("tokenizer_config.json", settings),
    ):
        text = json.dumps(content, indent=2, sort_keys=True) + "\n"
        (out / name).write_text(text, encoding="utf-8")
    # With tied embeddings lm_head is the same tensor, and the format wants each only once.
    tensors = {
        name: weight.detach().to(torch.bfloat16).contiguous()
        for name, weight in model.state_dict().items()
        if name != "lm_head.weight"
    }
    weights = out / "model.safetensors"
    save_file(tensors, weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # like its neighbours; safetensors makes it private
    (out / "README.md").write_text(CARD, encoding="utf-8")
    if weights.stat().st_size > MAX_BYTES:
        raise SystemExit(f"{weights.name} has {weights.stat().st_size:,} bytes, more than {MAX_BYTES:,}")


def main() -> None:
    """Train, write, load again and say how well it does."""
    parser = argparse.ArgumentParser(description="train the demo model")
    parser.add_argument("--steps", type=int, default=550)
    parser.add_argument("--batch", type=int, default=40)
    parser.add_argument("--out", type=Path, default=MODEL_DIRECTORY)
    options = parser.parse_args()

    torch.set_num_threads(1)  # the order of a sum depends on the number of threads
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(mode=True)
    rng = random.Random(SEED)
    phrasings = Phrasings(HERE / "demo_phrasings.json")
    tokenizer = make_tokenizer(phrasings, rng)
    model = make_model(tokenizer)
    print(f"{sum(weight.numel() for weight in model.parameters()):,} weights")
    loss = train(model, Batches(phrasings, tokenizer, rng), options.steps, options.batch)
    write(model, tokenizer, options.out)

    model = LlamaForCausalLM.from_pretrained(options.out, dtype=torch.float32).eval()
    print(f"last loss {loss:.4f}")
    for name, asked in (
        ("plain questions", list(EXAMPLES)),
        ("drawn questions", [(phrasings.draw(q, rng).strip(), a) for q, a in EXAMPLES for _ in range(5)]),
        ("unseen forms", unseen(phrasings, rng)),
    ):
        right, wrong = exact_matches(model, tokenizer, asked)
        print(f"{name}: {right} of {len(asked)} exact", *wrong, sep="\n  ")


if __name__ == "__main__":
    main()
