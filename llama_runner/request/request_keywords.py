"""The keywords of a request, and the options of each part of the pipeline that they become."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value, field
from llama_runner.core.option_values import checked_value, texts, unexpected_keyword_error, wrong_value_error
from llama_runner.core.plan import Snapshot
from llama_runner.core.step import Step, topological_order
from llama_runner.llama_cpp import cmake
from llama_runner.request.choose_binaries import AUTO, BinariesOptions
from llama_runner.request.model_and_build_options import ARTIFACTS
from llama_runner.sources.quantize_options import QuantizeOptions
from llama_runner.store import layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import TypedDict

    from llama_runner.convert import Outtype
    from llama_runner.core.converter_choice import Converter


if not TYPE_CHECKING:

    class TypedDict:
        """Keeps the names only: the real one compiles every annotation, which a warm start would wait for."""

        def __init_subclass__(cls, *, total: bool) -> None:
            """Take the argument of the real one."""


class RunnerKeywords(TypedDict, total=False):
    """Keywords beside the model; ``Options`` and ``QuantizeOptions`` document each one."""

    hf_model: str | None
    gguf_path: str | Path | None
    safetensors_dir: str | Path | None
    demo: bool
    quantization: str | None
    outtype: Outtype
    pre_tokenizer: str | None
    """llama.cpp's name for how the tokenizer splits text, where it is not recognised."""
    converter: Converter
    trust_remote_code: bool
    mmproj: bool
    lora: Iterable[str | Path]
    """LoRA adapters, ``[NAME=]WHERE[:SCALE]``: GGUF files, PEFT directories, or names on the Hub."""
    keep_f16: bool
    check: bool
    """Whether a conversion is followed by a check of its tokens and its template; it is by default."""
    device: str
    """What to compute on: ``auto``, one of llama.cpp's backends, ``+rpc`` after it to use other machines too."""
    binaries: str | Path
    """Where llama.cpp's programs come from: ``auto``, ``build``, ``prebuilt``, ``system``, the name of a build that is
    here, a directory, or a release archive as a file or URL."""
    sha256: str | None
    """Of that archive."""
    platform: str | None
    """What programs are to run on, where they are only unpacked: ``windows-x64``; None: this machine."""
    source: str | None
    """The source tree to build instead of the pinned one: a directory, or a git URL or path with ``@COMMIT``."""
    patches: Iterable[str]
    """Files or URLs of patches to build with."""
    build_type: str
    cmake_args: Iterable[str]
    cflags: str
    cxxflags: str
    jobs: int | None
    filename: str | None
    """The GGUF file of a repository that is meant."""
    pattern: str | None
    """What the name of the file that is meant looks like: ``*UD-Q4*``."""
    max_size: int | None
    """Bytes that model and projector may have."""
    fit_memory: bool
    """Whether to choose the best GGUF that this machine's memory can hold."""
    projector: bool
    """Whether a vision model's projector comes along; it does by default."""
    update: bool
    """Whether to ask the Hub what a name means now."""
    offline: bool
    """Whether to fail rather than use the network."""
    token_file: str | Path | None
    """A file with the token for the Hub, instead of ``HF_TOKEN`` or the one that was logged in with."""
    imatrix: str | Path | None
    calibration: str | Path | None
    calibration_chunks: int | None
    tensor_types: Iterable[str]
    output_tensor_type: str | None
    token_embedding_type: str | None
    pure: bool
    leave_output_tensor: bool
    prune_layers: str | None
    keep_split: bool
    allow_requantize: bool
    quality: str | Path | None
    quality_chunks: int
    force: Iterable[str]
    """Kinds of steps that run although they are up to date; ``("all",)`` for every one."""
    fresh_tools: bool
    """Whether what another version of a tool made counts as out of date."""
    remote_store: str | Path | None
    """The store of artifacts that other machines made: a directory or a URL. An empty text: none, whatever
    ``LLAMA_RUNNER_REMOTE_STORE`` says."""
    remote_push: bool
    """Whether to put into that store what it does not have yet."""
    locked: bool
    """Whether nothing may differ from the lock file."""
    lock_file: str | Path | None
    """The lock file; None: the nearest one, if ``locked``."""


class Options(Value):
    """Options of the artifacts. None of them concerns the launch."""

    quantization: str | None = None
    """None: q4_k_m for safetensors, as it is for a GGUF file or for MXFP4. Several, with commas between them, share a
    conversion."""
    tuning: QuantizeOptions = field(default_factory=QuantizeOptions)
    outtype: Outtype = "auto"
    pre_tokenizer: str | None = None
    trust_remote_code: bool = False
    """Whether that script may run code that came with the model."""
    mmproj: bool = False
    """Whether to make the projector of a model whose weights are converted here."""
    keep_f16: bool = False
    check: bool = True


NO_CHECK = "LLAMA_RUNNER_NO_CHECK"
"""The environment variable that leaves the check out."""

_DEFINED = {option.name: option for option in ARTIFACTS if option.reader == "artifacts"}


class UnknownStep(UsageError):
    """There is no such step to force in what was asked for."""

    def __init__(self, name: str, steps: list[str]) -> None:
        self.name, self.steps = name, steps
        super().__init__(f"there is no step called {name!r} here", hint=f"the steps are {', '.join(steps)}")


def checked(keywords: Mapping[str, Any]) -> RunnerKeywords:
    """Return the options with values of their kinds.

    Raises ``UnexpectedKeyword`` for a name that no option has, and ``UsageError`` for a value of another kind.
    """
    found: dict[str, Any] = {}
    for name, value in keywords.items():
        if name not in RunnerKeywords.__annotations__:
            raise unexpected_keyword_error(name, RunnerKeywords.__annotations__)
        if name == "force":
            found[name] = _forced(value)
        else:
            found[name] = checked_value(_DEFINED[name], value) if name in _DEFINED else value
    return cast("RunnerKeywords", found)


def _forced(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - checked here
    """Return the kinds of steps to run again; True stands for all."""
    if isinstance(value, bool):
        return ("all",) if value else ()
    try:
        return texts(value)
    except TypeError:
        raise wrong_value_error("force", "a list of texts", value) from None


def quantize_options_of(keywords: RunnerKeywords) -> QuantizeOptions:
    """Return the options of quantization."""
    texts = {name: keywords.get(name) for name in ("imatrix", "calibration", "quality")}
    given = {name: layout.user_path(cast("str", path)) for name, path in texts.items() if path is not None}
    return QuantizeOptions(
        **given,
        calibration_chunks=keywords.get("calibration_chunks"),
        tensor_types=tuple(keywords.get("tensor_types", ())),
        output_tensor_type=keywords.get("output_tensor_type"),
        token_embedding_type=keywords.get("token_embedding_type"),
        pure=keywords.get("pure", False),
        leave_output_tensor=keywords.get("leave_output_tensor", False),
        prune_layers=keywords.get("prune_layers"),
        keep_split=keywords.get("keep_split", False),
        allow_requantize=keywords.get("allow_requantize", False),
        quality_chunks=keywords.get("quality_chunks", QuantizeOptions().quality_chunks),
    )


def options_of(keywords: RunnerKeywords, quantization: str | None) -> Options:
    """Return the options of the model; ``quantization`` may also come from its name."""
    return Options(
        quantization=quantization,
        tuning=quantize_options_of(keywords),
        outtype=keywords.get("outtype", "auto"),
        pre_tokenizer=keywords.get("pre_tokenizer"),
        trust_remote_code=keywords.get("trust_remote_code", False),
        mmproj=keywords.get("mmproj", False),
        keep_f16=keywords.get("keep_f16", False),
        check=keywords.get("check", True) and os.environ.get(NO_CHECK, "0") in ("", "0"),
    )


def binaries_options_of(keywords: RunnerKeywords) -> BinariesOptions:
    """Return the options of the programs."""
    compilation = cmake.CMakeOptions(
        build_type=keywords.get("build_type", "Release"),
        arguments=tuple(keywords.get("cmake_args", ())),
        cflags=keywords.get("cflags", ""),
        cxxflags=keywords.get("cxxflags", ""),
    )
    return BinariesOptions(
        device=keywords.get("device", AUTO),
        binaries=str(keywords.get("binaries", AUTO)),
        sha256=keywords.get("sha256"),
        platform=keywords.get("platform"),
        source=keywords.get("source"),
        patches=tuple(keywords.get("patches", ())),
        compilation=compilation,
        jobs=keywords.get("jobs"),
    )


def snapshot_of(targets: Iterable[Step], keywords: RunnerKeywords, *, remote: bool = False) -> Snapshot:
    """Return a snapshot with the steps to force; ``UnknownStep`` for a kind that no step has."""
    forced = frozenset(keywords.get("force", ()))
    steps = [node.kind for node in topological_order(targets) if isinstance(node, Step)]
    if "all" in forced:
        forced = frozenset(steps)
    for name in sorted(forced - set(steps)):
        raise UnknownStep(name, steps)
    fresh_tools = keywords.get("fresh_tools", False)
    return Snapshot({}, forced, fresh_tools, remote and not fresh_tools)
