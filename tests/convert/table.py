"""What docs/architectures.md says: which architectures are converted here, and what was compared for each.

Made from the registry, the cases and the goldens, so that nothing is claimed that no test holds.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from llama_runner.convert.families import ARCHITECTURES, family_of
from llama_runner.convert.official_architectures import MODELS
from llama_runner.convert.projectors import PROJECTORS as NATIVE_PROJECTORS
from tests.convert.official import GROUPS, PROJECTORS, cases_of, is_confirmed, recorded
from tests.convert.otherwise import OTHERWISE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "architectures.md"
TYPES = ("f32", "f16", "bf16", "q8_0", "auto")
SOURCES = ("F32", "F16", "BF16")  # besides others: 64 bits, and numbers of 8 bits and less in quantized checkpoints
INTRODUCTION = """# Architectures

<!-- Written by tests/data/convert/make_table.py; edit nothing here. -->

{native} names of architectures (`architectures` in config.json) are converted by llama_runner itself, without torch.
For each, tiny models with random weights are converted by llama_runner and by `convert_hf_to_gguf.py` of the pinned
llama.cpp, and the files are compared by their SHA-256, metadata included: {comparisons} comparisons of {layouts}
checkpoints. _Identical for_ lists the output types that were compared, _from_ the types of most weights, and
_layouts_ the number of checkpoints with different options. These options vary: one or several files, an output matrix
of its own or tied to the embedding, the number of key heads (as many as query heads, fewer, one), a head size that is
not the width divided by the number of heads, biases, kinds of RoPE scaling.

| Architecture | Family | In GGUF | Identical for | From | Layouts | What varies |
|---|---|---|---|---|---:|---|
"""
DIFFERENT = """
In these cases llama.cpp would split text otherwise than the model's own tokenizer if it used the script's file. The
file made here differs from the script's in these fields only:

{items}

If a byte-level tokenizer puts no BOS before a text, the script does not write that, and llama.cpp adds one by default
(pre-tokenizers of Llama 3, Falcon 3, Tekken). Here `add_bos_token` is written for every such tokenizer. The first
Llama 3 and Phi 3 get another pre-tokenizer and another name than by the script
([pre-tokenizers.md](pre-tokenizers.md)).

The decay of a state space (`ssm_a`) is minus the exponential of a stored number. The script's depends on the processor
and is the next number for one float32 in a hundred; here it is always the nearest
([decision 65](decisions/0065-exponentials-are-rounded-to-the-nearest-number.md)).

Checkpoints that transformers 5 saved are converted like those of version 4: `TokenizersBackend`,
`extra_special_tokens`, `rope_parameters`, and no BOS unless tokenizer.json or `add_bos_token` says so.
"""
PROJECTING = """
## Projectors

The projectors (`--mmproj`) of these vision models are converted by llama_runner itself, whoever converts the text part.
They are compared in the same way: {comparisons} comparisons of {layouts} checkpoints.

| Architecture | Encoder | Identical for | From | Layouts |
|---|---|---|---|---:|
{rows}
Two things differ from the script's file, which llama-server does not load in either case:

* The file of a Pixtral or Mistral 3 has the embedding of `[IMG_BREAK]`. The script leaves it out where the name of the
  embedding begins with `language_model.`, as in all published checkpoints.
* Tensors whose names begin with `model.`, as transformers 5 saves them, are the same tensors. The script drops them and
  writes a file without any.

The script makes no projector of a LLaVA with another encoder than Pixtral's (CLIP in LLaVA 1.5), nor does llama_runner.
The projectors of other architectures are converted by the script.
"""
OTHERS = """
Another {count} architectures are converted by llama.cpp's own script, in a Python environment of its own:

{names}.
"""


@dataclass
class Compared:
    """What the goldens hold of one architecture."""

    layouts: int = 0
    types: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)
    options: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


def compared(folder: Path, groups: Iterable[str] = GROUPS) -> dict[str, Compared]:
    """What is compared, per architecture; the checkpoints are made in a folder."""
    found: dict[str, Compared] = defaultdict(Compared)
    for group in groups:
        goldens = recorded(group) if is_confirmed(group) else {}
        for title, case in cases_of(group).items():
            directory = folder / group / title
            case.build(directory)
            config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
            entry = found[config["architectures"][0]]
            entry.layouts += 1
            entry.types |= {kind for kind in case.outtypes if f"{title}/{kind}" in goldens}
            _look(entry, config, directory)
    return found


def _look(entry: Compared, config: dict[str, Any], directory: Path) -> None:
    shards = sorted(directory.glob("*.safetensors"))
    dtypes = {name: dtype for shard in shards for name, dtype in _header(shard).items()}
    kinds = list(dtypes.values())
    entry.sources.add(max(sorted(set(kinds)), key=kinds.count))
    entry.options["files"].add("several files" if len(shards) > 1 else "one file")
    own = any(name.endswith(("lm_head.weight", "embed_out.weight")) or name == "output.weight" for name in dtypes)
    entry.options["head"].add("own output" if own else "tied")
    heads = config.get("num_attention_heads") or config.get("n_head") or 1
    keys = config.get("num_key_value_heads") or config.get("num_kv_heads") or heads
    entry.options["keys"].add("all heads" if keys == heads else "one key head" if keys == 1 else "grouped")
    size, width = config.get("head_dim"), config.get("hidden_size")
    entry.options["size"].add("own head size" if size and width and size * heads != width else "")
    matrices = ("proj.bias", "fc.bias", "dense.bias", "attn.bias")
    entry.options["biases"].add("biases" if any(name.endswith(matrices) for name in dtypes) else "no biases")
    rope = config.get("rope_scaling") or {}
    kind = rope.get("rope_type") or rope.get("type")
    entry.options["rope"].add(kind or "")


def _header(shard: Path) -> dict[str, str]:
    data = shard.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return {name: entry["dtype"] for name, entry in header.items() if name != "__metadata__"}


def document(found: Mapping[str, Compared], projectors: Mapping[str, Compared]) -> str:
    """The whole page."""
    comparisons = sum(len(recorded(group)) for group in GROUPS if is_confirmed(group))
    layouts = sum(entry.layouts for entry in found.values())
    head = INTRODUCTION.format(native=len(ARCHITECTURES), comparisons=comparisons, layouts=layouts)
    others = sorted(MODELS - set(ARCHITECTURES))
    items = "\n".join(fill(f"* {one.what}: {one.why}.", 118, subsequent_indent="  ") for one in OTHERWISE)
    tail = DIFFERENT.format(items=items) + OTHERS.format(count=len(others), names=_wrapped(others))
    return head + "".join(_row(name, found[name]) for name in sorted(ARCHITECTURES)) + tail + _projecting(projectors)


def _projecting(found: Mapping[str, Compared]) -> str:
    rows = "".join(
        f"| `{name}` | [{module}](../llama_runner/convert/projectors/{module}.py) | {_list(entry.types, TYPES)} | "
        f"{_list(entry.sources, SOURCES)} | {entry.layouts} |\n"
        for name, entry in sorted(found.items())
        for module in [NATIVE_PROJECTORS[name][0].partition(".")[0]]
    )
    layouts = sum(entry.layouts for entry in found.values())
    return PROJECTING.format(comparisons=len(recorded(PROJECTORS)), layouts=layouts, rows=rows)


def _row(name: str, entry: Compared) -> str:
    module = ARCHITECTURES[name].partition(".")[0]
    family = f"[{module}](../llama_runner/convert/families/{module}.py)"
    cells = (
        f"`{name}`", family, f"`{family_of(name).name}`", _list(entry.types, TYPES), _list(entry.sources, SOURCES),
        str(entry.layouts), ", ".join(_varied(entry)),
    )  # fmt: skip
    return f"| {' | '.join(cells)} |\n"


def _varied(entry: Compared) -> Iterable[str]:
    """The options that occur in several ways, in the order in which they are explained, and every RoPE scaling."""
    for option, values in entry.options.items():
        if option == "rope" and values - {""}:
            yield f"RoPE {'/'.join(sorted(values - {''}))}"
        elif len(values) > 1:
            yield from sorted(value for value in values if value)


def _list(values: set[str], order: tuple[str, ...]) -> str:
    return ", ".join([*(value for value in order if value in values), *sorted(values - set(order))])


def _wrapped(names: Iterable[str], width: int = 118) -> str:
    lines = [""]
    for name in (f"`{name}`," for name in names):
        if len(lines[-1]) + len(name) >= width:
            lines.append("")
        lines[-1] += f" {name}" if lines[-1] else name
    return "\n".join(lines).removesuffix(",")
