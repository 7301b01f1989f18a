"""In which type each tensor of the output is written: llama.cpp's rules for ``--outtype``, vectors and norms."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llama_runner.convert.safetensors import Tensor

ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
# Elements and bytes of a block.
BLOCKS = {"F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "Q8_0": (32, 34), "MXFP4": (32, 17)}
FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7, "bf16": 32}  # llama.cpp's LlamaFileType
MXFP4_FILE_TYPE = 38  # for files with experts in MXFP4, whatever the type of the rest, except q8_0
MATRIX = 2  # minimum number of dimensions of a tensor that is stored in 16 bits
# Matrices that llama.cpp stores in 32 bits.
EXACT = frozenset(
    {"ffn_gate_inp", "ffn_gate_inp_shexp", "position_embd", "token_types", "shortconv.conv", "ssm_conv1d"}
    | {"altup_correct_coef", "altup_predict_coef"}
)


def guess_outtype(tensors: Iterable[Tensor]) -> str:
    """Return the type of the first 16-bit matrix, else f16: the rule of ``--outtype auto``."""
    known = {"BF16": "bf16", "F16": "f16"}
    return next((known[t.dtype] for t in tensors if len(t.shape) >= MATRIX and t.dtype in known), "f16")


def tensor_type(name: str, shape: tuple[int, ...], outtype: str) -> str:
    """Return the type of a tensor: F32 for vectors, norms and exact matrices, else the chosen type."""
    plain = re.sub(r"^blk\.\d+\.", "", name).removesuffix(".weight")
    matrix = len(shape) >= MATRIX and name.endswith(".weight") and not name.endswith("_norm.weight")
    if not matrix or plain in EXACT:
        return "F32"
    kind = outtype.upper()
    return kind if shape[-1] % BLOCKS[kind][0] == 0 else "F16"  # rows that blocks do not fill, as the official script
