"""Trains a LoRA adapter with PEFT: a program of its own, which imports nothing of llama_runner.

``python -I -B trainer_program.py JOB`` runs in the environment of the official converter, offline, without code
of the model. Events are lines of JSON after ``trainer:`` on standard output. A checkpoint holds weights, optimizer,
random numbers and position, so that a training that was killed goes on and ends with the same bytes. SIGTERM writes
one. On the CPU the same job gives the same bytes: fixed number of threads, deterministic algorithms.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

PREFIX, CHECKPOINT, TERMINATED, IGNORED = "trainer:", "checkpoint.pt", 143, -100
WARMUP, CLIP = 0.03, 1.0
"""Share of the steps in which the learning rate rises, then it falls as a cosine; the largest norm of gradients."""

Sequence = tuple[
    list[int], list[int]
]  # tokens; the same with IGNORED, which cross_entropy leaves out, for what is not learned


def rounded(number: float) -> float:
    """Return six significant digits."""
    return float(f"{number:.6g}")


class Refused(Exception):
    """The job cannot be done; ``what`` is a keyword, the message a clause."""

    def __init__(self, what: str, text: str) -> None:
        super().__init__(text)
        self.what = what


def tell(event: str, **facts: object) -> None:
    """Write an event."""
    sys.stdout.write(f"{PREFIX} {json.dumps({'event': event, **facts})}\n")
    sys.stdout.flush()


class Renderer:
    """Turns examples into sequences of tokens, with the template of the model."""

    def __init__(self, tokenizer: Any, length: int, *, everything: bool) -> None:  # noqa: ANN401 - of a library
        """``everything``: learn the questions too. ``length`` is the greatest number of tokens of a sequence."""
        self._tokenizer, self._length, self._everything = tokenizer, length, everything
        self.truncated = self.dropped = 0

    def sequences(self, example: dict[str, Any]) -> list[Sequence]:
        """Return the sequences of an example, cut to the length; those in which nothing is learned are left out."""
        if "text" in example:
            tokens = [*self._begin(), *self._encode(example["text"]), *self._end()]
            pieces = [tokens[at : at + self._length] for at in range(0, len(tokens), self._length)]
            return [(piece, piece) for piece in pieces if len(piece) > 1]
        if "messages" in example:
            found = self._chat(example["messages"], example.get("tools"))
        elif self._tokenizer.chat_template:
            turns = [{"role": "user", "content": example["prompt"]}]
            found = self._chat([*turns, {"role": "assistant", "content": example["completion"]}], None)
        else:
            prompt = [*self._begin(), *self._encode(example["prompt"])]
            answer = [*self._encode(example["completion"]), *self._end()]
            found = [(prompt + answer, self._asked(prompt) + answer)]
        return [cut for each in found if (cut := self._cut(*each)) is not None]

    def _chat(self, messages: list[dict[str, Any]], tools: object) -> list[Sequence]:
        """Return one sequence, or one for each answer where the template changes what it has rendered before."""
        if not self._tokenizer.chat_template:
            raise Refused("template", "the model has no chat template; write prompt and completion, or text")
        found: list[Sequence] = []
        answers: list[tuple[int, int]] = []
        text = ""
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            prompt = self._render(messages[:index], tools, ask=True)
            whole = self._render(messages[: index + 1], tools, ask=False)
            start = len(os.path.commonprefix([prompt, whole]))  # noqa: RUF071 - of texts, not of paths
            if not whole[:start].startswith(text):
                found.append(self._marked(text, answers))
                answers = []
            if message.get("weight", 1):
                answers = [*answers, (start, len(whole))]
            text = whole
        return [*found, self._marked(text, answers)]

    def _marked(self, text: str, answers: list[tuple[int, int]]) -> Sequence:
        """Return the tokens of a chat. Those that begin in an answer are learned: a text is split as a whole."""
        found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        tokens, starts = found["input_ids"], [start for start, _ in found["offset_mapping"]]
        is_answer = [self._everything or any(first <= start < end for first, end in answers) for start in starts]
        return tokens, [token if learned else IGNORED for token, learned in zip(tokens, is_answer, strict=True)]

    def _render(self, messages: list[dict[str, Any]], tools: object, *, ask: bool) -> str:
        turns = [{name: value for name, value in message.items() if name != "weight"} for message in messages]
        render = self._tokenizer.apply_chat_template
        try:
            return str(render(turns, tools=tools or None, tokenize=False, add_generation_prompt=ask))
        except Exception as error:  # noqa: BLE001 - a template raises what it likes
            raise Refused("template", f"the chat template refuses an example: {error}") from None

    def _asked(self, tokens: list[int]) -> list[int]:
        return list(tokens) if self._everything else [IGNORED] * len(tokens)

    def _cut(self, tokens: list[int], learned: list[int]) -> Sequence | None:
        if len(tokens) > self._length:
            self.truncated += 1
            tokens, learned = tokens[: self._length], learned[: self._length]
        if all(each == IGNORED for each in learned[1:]):
            self.dropped += 1
            return None
        return tokens, learned

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _begin(self) -> list[int]:
        first = self._tokenizer("")["input_ids"][:1]
        return first if first == [self._tokenizer.bos_token_id] else []

    def _end(self) -> list[int]:
        return [] if self._tokenizer.eos_token_id is None else [self._tokenizer.eos_token_id]


class Training:
    """One training: model with adapter, data, optimizer, and how far it is."""

    def __init__(self, job: dict[str, Any]) -> None:
        import torch  # noqa: PLC0415 - takes seconds

        self._torch, self._options, self._work = torch, job["options"], Path(job["work"])
        self._device = job["device"]
        self._until_checkpoint, self._is_ended = float(job["checkpoint_s"]), False
        torch.manual_seed(self._options["seed"])
        self._renderer, sequences = self._read(job)
        self._train, self._held_out = self._split(sequences)
        self.model = self._open(job)
        self._weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        self._rate: float = float(self._options["learning_rate"])
        self._optimizer = torch.optim.AdamW(self._weights, lr=self._rate, weight_decay=0.0)
        self._per_epoch = math.ceil(len(self._train) / self._options["batch"])
        self._steps = self._per_epoch * self._options["epochs"]
        self._step, self._is_over = 0, False
        self._best: dict[str, Any] | None = None
        self._losses: list[float] = []
        self._validation: list[list[float]] = []

    def _read(self, job: dict[str, Any]) -> tuple[Renderer, list[Sequence]]:
        from transformers import AutoTokenizer  # noqa: PLC0415 - takes seconds

        tokenizer = AutoTokenizer.from_pretrained(job["model"], trust_remote_code=False)
        if not tokenizer.is_fast:
            raise Refused("template", "its tokenizer does not tell where tokens begin (it has no fast form)")
        renderer = Renderer(tokenizer, self._options["length"], everything=self._options["loss"] == "all")
        with Path(job["examples"]).open(encoding="utf-8") as file:
            sequences = [found for line in file for found in renderer.sequences(json.loads(line))]
        if not sequences:
            raise Refused("data", f"no answer lies within {self._options['length']} tokens; raise --sequence-length")
        tell("data", sequences=len(sequences), truncated=renderer.truncated, dropped=renderer.dropped)
        return renderer, sequences

    def _split(self, sequences: list[Sequence]) -> tuple[list[Sequence], list[Sequence]]:
        share = float(self._options["validation"])
        count = max(round(len(sequences) * share), 1 if share else 0)
        if count >= len(sequences):
            raise Refused("data", "the validation split leaves nothing to train on")
        order = list(range(len(sequences)))
        random.Random(self._options["seed"]).shuffle(order)  # noqa: S311 - no secret
        held = set(order[:count])
        kept = [each for number, each in enumerate(sequences) if number not in held]
        return kept, [sequences[number] for number in sorted(held)]

    def _open(self, job: dict[str, Any]) -> Any:  # noqa: ANN401 - of a library
        from peft import LoraConfig, PeftModel, get_peft_model  # noqa: PLC0415 - takes seconds
        from transformers import AutoModelForCausalLM  # noqa: PLC0415 - as above

        kind = self._torch.float32 if self._device == "cpu" else self._torch.bfloat16
        model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=kind, trust_remote_code=False)
        model.config.use_cache = False
        if self._options["gradient_checkpointing"]:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.enable_input_require_grads()
        targets = self._options["targets"]
        try:
            if job.get("start"):
                model = PeftModel.from_pretrained(model, job["start"], is_trainable=True)
            else:
                config = LoraConfig(
                    task_type="CAUSAL_LM",
                    r=self._options["rank"],
                    lora_alpha=self._options["alpha"],
                    lora_dropout=float(self._options["dropout"]),
                    target_modules="all-linear" if targets == ["all"] else targets,
                )
                model = get_peft_model(model, config)
        except ValueError as error:
            raise Refused("targets", str(error)) from None
        return model.to(self._device)

    def run(self) -> None:
        """Train from the last checkpoint to the end."""
        signal.signal(signal.SIGTERM, self._end)
        self._resume()
        self.model.train()
        saved = time.monotonic()
        while self._step < self._steps and not self._is_over:
            began = time.monotonic()
            loss, tokens = self._batch()
            self._losses.append(rounded(loss))
            if not math.isfinite(loss):
                raise Refused("diverged", f"the loss is {loss} after {self._step} steps; lower --learning-rate")
            seconds = max(time.monotonic() - began, 1e-6)
            held_out = {"validation_loss": self._validation[-1][1]} if self._validation else {}
            facts = {"loss": self._losses[-1], "rate": rounded(self._rate_at(self._step - 1)), **held_out}
            tell("step", step=self._step, steps=self._steps, tokens_s=rounded(tokens / seconds), **facts)
            self._is_over = self._step % self._per_epoch == 0 and bool(self._held_out) and self._is_enough()
            if self._is_ended or self._is_over or time.monotonic() - saved >= self._until_checkpoint:
                self._save()
                saved = time.monotonic()
            if self._is_ended:
                sys.exit(TERMINATED)

    def _end(self, *_signal: object) -> None:
        self._is_ended = True

    def _batch(self) -> tuple[float, int]:
        """Train one step; return the mean loss of what is learned, and how many tokens were read."""
        torch = self._torch
        epoch, index = divmod(self._step, self._per_epoch)
        order = list(range(len(self._train)))
        random.Random(f"{self._options['seed']} {epoch}").shuffle(order)  # noqa: S311 - no secret
        size = self._options["batch"]
        chosen = [self._train[number] for number in order[index * size : (index + 1) * size]]
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate_at(self._step)
        total, count, tokens = self._loss(chosen)
        loss = total / count
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._weights, CLIP)
        self._optimizer.step()
        self._step += 1
        return float(loss.detach()), tokens

    def _rate_at(self, step: int) -> float:
        warm = max(1, round(self._steps * WARMUP))
        done = (step - warm) / max(1, self._steps - warm)
        return self._rate * ((step + 1) / warm if step < warm else (1.0 + math.cos(math.pi * done)) / 2.0)

    def _loss(self, sequences: list[Sequence]) -> tuple[Any, int, int]:
        """Return the sum of the loss, the number of tokens that are learned, and of those that are read."""
        torch = self._torch
        longest = max(len(tokens) for tokens, _ in sequences)
        ids = torch.zeros((len(sequences), longest), dtype=torch.long)
        mask, targets = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
        for row, (tokens, learned) in enumerate(sequences):
            ids[row, : len(tokens)], mask[row, : len(tokens)] = torch.tensor(tokens), 1
            targets[row, : len(learned)] = torch.tensor(learned)
        logits = self.model(input_ids=ids.to(self._device), attention_mask=mask.to(self._device)).logits
        wanted = targets[:, 1:].reshape(-1).to(self._device)
        flat = logits[:, :-1].reshape(-1, logits.shape[-1]).float()
        total = torch.nn.functional.cross_entropy(flat, wanted, ignore_index=IGNORED, reduction="sum")
        return total, int((wanted != IGNORED).sum()), int(mask.sum())

    def _is_enough(self) -> bool:
        """Measure the loss of what is held out, keep the best weights, and return whether to stop early."""
        torch = self._torch
        self.model.eval()
        with torch.no_grad():
            found = [self._loss([sequence])[:2] for sequence in self._held_out]
        self.model.train()
        loss = rounded(sum(float(total) for total, _ in found) / sum(count for _, count in found))
        self._validation.append([self._step, loss])
        tell("validated", step=self._step, steps=self._steps, validation_loss=loss)
        if self._best is None or loss < self._best["loss"]:
            self._best = {"loss": loss, "step": self._step, "state": {k: v.clone() for k, v in self._state().items()}}
        waited = (self._step - self._best["step"]) // self._per_epoch
        return bool(self._options["early_stopping"]) and waited >= self._options["early_stopping"]

    def _state(self) -> dict[str, Any]:
        from peft import get_peft_model_state_dict  # noqa: PLC0415 - as above

        return {name: weight.detach() for name, weight in get_peft_model_state_dict(self.model).items()}

    def _save(self) -> None:
        torch, path = self._torch, self._work / CHECKPOINT
        unfinished = path.with_suffix(".new")
        state = {
            "step": self._step,
            "weights": self._state(),
            "optimizer": self._optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state_all() if self._device != "cpu" else [],
            "losses": self._losses,
            "validation": self._validation,
            "best": self._best,
            "is_over": self._is_over,
        }
        try:
            with unfinished.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:  # torch ends its archive after the write that failed, and fails again
            unfinished.unlink(missing_ok=True)
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
        unfinished.replace(path)
        tell("checkpoint", step=self._step, steps=self._steps)

    def _resume(self) -> None:
        from peft import set_peft_model_state_dict  # noqa: PLC0415 - as above

        torch, path = self._torch, self._work / CHECKPOINT
        if not path.exists():
            return
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except Exception:  # noqa: BLE001 - torch raises many kinds for a damaged file
            path.unlink()
            tell("damaged")
            return
        try:
            set_peft_model_state_dict(self.model, found["weights"])
            self._optimizer.load_state_dict(found["optimizer"])
            torch.set_rng_state(found["random"])
            if self._device != "cpu":
                torch.cuda.set_rng_state_all(found["cuda_random"])
        except Exception as error:  # noqa: BLE001 - as above
            path.unlink()
            raise Refused("checkpoint", f"the checkpoint cannot be used: {error}") from None
        self._step, self._losses = found["step"], found["losses"]
        self._validation, self._best, self._is_over = found["validation"], found["best"], found["is_over"]
        tell("resumed", step=self._step, steps=self._steps)

    def write(self, out: Path, name: str, revision: str) -> None:
        """Write the adapter as PEFT does, with nothing in it that depends on place, time or order."""
        from safetensors.torch import save_file  # noqa: PLC0415 - as above

        file = out / "adapter_model.safetensors"
        weights = self._best["state"] if self._best is not None else self._state()
        state = {name: weight.cpu().to(self._torch.float32).contiguous() for name, weight in weights.items()}
        save_file(dict(sorted(state.items())), file, metadata={"format": "pt"})
        file.chmod(0o644)
        settings = dict(self.model.peft_config["default"].to_dict())
        settings |= {"base_model_name_or_path": name, "revision": revision or None, "inference_mode": True}
        text = json.dumps(settings, indent=2, sort_keys=True, default=sorted)
        (out / "adapter_config.json").write_text(f"{text}\n", encoding="utf-8")
        last = self._losses[-self._per_epoch :]
        metrics = {
            "steps": self._step,
            "epochs": math.ceil(self._step / self._per_epoch),
            "loss": rounded(sum(last) / len(last)),
            "first_loss": self._losses[0],
            "validation_loss": None if self._best is None else self._best["loss"],
            "best_step": None if self._best is None else self._best["step"],
            "stopped_early": self._step < self._steps,
            "sequences": len(self._train),
            "held_out": len(self._held_out),
            "truncated": self._renderer.truncated,
            "dropped": self._renderer.dropped,
            "weights": sum(weight.numel() for weight in weights.values()),
            "losses": self._losses,
            "validation": self._validation,
        }
        (out / "training.json").write_text(f"{json.dumps(metrics, indent=1)}\n", encoding="utf-8")


def main(job_file: str) -> None:
    """Do the job."""
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    import torch  # noqa: PLC0415 - takes seconds

    torch.set_num_threads(job["threads"])
    torch.set_num_interop_threads(1)
    torch.use_deterministic_algorithms(mode=True, warn_only=job["device"] != "cpu")
    try:
        training = Training(job)
        training.run()
        training.write(Path(job["out"]), job["name"], job["revision"])
    except Refused as error:
        failure = error.what, str(error)
    except (RuntimeError, MemoryError) as error:  # that of torch is a RuntimeError
        if "memory" not in str(error) and not isinstance(error, MemoryError):
            raise
        failure = "memory", str(error).partition("\n")[0]
    else:
        return
    tell("failed", what=failure[0], text=failure[1])
    sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
