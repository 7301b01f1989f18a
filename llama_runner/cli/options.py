"""Options that several commands share, and how they become arguments of ``Runner``."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_runner.serving.llama_server.launch_spec import ServerOptions

_LARGEST = 1 << 63

Command = Any
"""A function being made into a click command."""


class NumberOr(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2
    """A whole number that is not negative, or one of a few words."""

    name = "number"

    def __init__(self, *words: str, least: int = 0) -> None:
        self.words, self.least = words, least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """See click."""
        if value in self.words or isinstance(value, int):
            return value  # type: ignore[no-any-return]
        try:
            number = int(value)
        except ValueError:
            number = -1
        if not self.least <= number < _LARGEST:
            expected = " or ".join([f"a number from {self.least} up", *map(repr, self.words)])
            self.fail(f"{value!r} is not {expected}", param, ctx)
        return number

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """See click."""
        del param, ctx
        return "|".join(["N", *self.words])


class Number(click.FloatRange):
    """A number that is finite; ``nan`` and ``inf`` are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See click."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


SECONDS = Number(0, 1e9)
"""How long something may take."""


class Size(click.ParamType):  # type: ignore[type-arg]  # as above
    """A number of bytes: ``8G``, ``8GiB``, ``7.5 GB``, ``800M``; K, M, G, T are powers of 1024, KB to TB of 1000."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See click."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b?)\s*", value.lower())
        if match is None or not float(match[1]):
            self.fail(f"{value!r} is not a size such as 8G, 7.5GB or 800MiB", param, ctx)
        base = 1000 if match[2] and match[3] == "b" else 1024
        size = float(match[1]) * base ** " kmgt".index(match[2] or " ")
        if size >= _LARGEST:
            self.fail(f"{value!r} is larger than any disk", param, ctx)
        return int(size)


def together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return a decorator that adds options in their order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


store = together(
    click.option("--root", metavar="DIR", help="Where models, binaries and logs are kept (LLAMA_RUNNER_ROOT)."),
    click.option("--json", "as_json", is_flag=True, help="Print JSON for programs."),
)

device = click.option(
    "--device", "--backend", "device", default="auto", metavar="NAME", help="Compute on: cpu, cuda, vulkan, …"
)

sha256 = click.option("--sha256", metavar="DIGEST", help="Of that archive.")

building = together(
    click.option("--source", metavar="DIR|URL@COMMIT", help="Build this llama.cpp instead of the pinned one."),
    click.option("--patch", "patches", multiple=True, metavar="FILE|URL", help="Build with this patch."),
    click.option(
        "--build-type",
        type=click.Choice(["Release", "RelWithDebInfo", "MinSizeRel", "Debug"]),
        default="Release",
        help="CMake's build type.",
    ),
    click.option("--cmake-arg", "cmake_args", multiple=True, metavar="NAME=VALUE", help="An option for CMake."),
    click.option("--cflags", default="", metavar="FLAGS", help="More flags for the C compiler."),
    click.option("--cxxflags", default="", metavar="FLAGS", help="More flags for the C++ compiler."),
    click.option("--jobs", type=click.IntRange(1), metavar="N", help="Compilers at once; default: what fits."),
)

programs = together(
    device,
    click.option(
        "--binaries",
        default="auto",
        metavar="FROM",
        help="llama.cpp's programs: build, prebuilt, system, a build here, a directory, an archive's file or URL.",
    ),
    sha256,
    building,
)

model = together(
    click.argument("model", required=False),
    click.option("--hf-model", metavar="ORG/MODEL[@REV][:QUANT]", help="A model on the Hugging Face Hub."),
    click.option("--gguf-path", metavar="FILE", help="A GGUF file, used where it lies."),
    click.option("--safetensors-dir", metavar="DIR", help="A directory with config.json, tokenizer and safetensors."),
    click.option("--demo", is_flag=True, help="The tiny model that comes along."),
    click.option(
        "-q", "--quantization", metavar="TYPE", help="q4_k_m (the default), q8_0, q6_k, …, or f16, bf16, f32 for none."
    ),
    click.option("--filename", metavar="NAME", help="The GGUF file of a repository that is meant."),
    click.option("--pattern", metavar="GLOB", help="What the name of that file looks like: '*UD-Q4*'."),
    click.option("--max-size", type=Size(), metavar="SIZE", help="The best GGUF file up to this size: 8G."),
    click.option("--fit-memory", is_flag=True, help="The best GGUF file that this machine's memory can hold."),
    click.option("--no-projector", is_flag=True, help="Leave out what a vision model turns images into tokens with."),
    click.option("--update", is_flag=True, help="Ask the Hub what the name means now; fetch what changed."),
    click.option("--offline", is_flag=True, help="Use no network; fail if something is missing (HF_HUB_OFFLINE)."),
    click.option("--token-file", metavar="FILE", help="The token for the Hub, if not in HF_TOKEN or logged in."),
    click.option(
        "--outtype",
        type=click.Choice(["auto", "bf16", "f16", "f32", "q8_0"]),
        default="auto",
        help="What safetensors are converted to first: auto is their own 16-bit type, q8_0 is not quantized further.",
    ),
    click.option(
        "--converter",
        type=click.Choice(["auto", "native", "official"]),
        default="auto",
        help="official: llama.cpp's own script, in a Python of its own; auto: that for what is not converted here.",
    ),
    click.option("--trust-remote-code", is_flag=True, help="Let that script run Python code that came with the model."),
    click.option("--mmproj", is_flag=True, help="Make the projector of a vision model too, by that script."),
    click.option("--lora", multiple=True, metavar="PATH", help="A LoRA adapter: a GGUF file, or a PEFT directory."),
    click.option("--pre-tokenizer", metavar="NAME", help="How the tokenizer splits text, if it is not recognised."),
    click.option("--imatrix", metavar="FILE", help="An importance matrix to quantize with."),
    click.option("--calibration", metavar="FILE", help="A text to make an importance matrix with."),
    click.option("--calibration-chunks", type=click.IntRange(1), metavar="N", help="Read so many pieces of it; all."),
    click.option(
        "--tensor-type", "tensor_types", multiple=True, metavar="NAME=TYPE", help="The type of tensors named so."
    ),
    click.option("--output-tensor-type", metavar="TYPE", help="The type of the output tensor."),
    click.option("--token-embedding-type", metavar="TYPE", help="The type of the token embeddings."),
    click.option("--pure", is_flag=True, help="Quantize every tensor to the same type."),
    click.option("--leave-output-tensor", is_flag=True, help="Do not quantize the output tensor."),
    click.option("--prune-layers", metavar="N,N,…", help="Leave these layers out."),
    click.option("--keep-split", is_flag=True, help="Quantize into as many files as the source has."),
    click.option("--allow-requantize", is_flag=True, help="Quantize what is quantized already."),
    click.option("--quality", metavar="FILE", help="A text over which to compare what is quantized with its base."),
    click.option(
        "--quality-chunks", type=click.IntRange(1), default=32, metavar="N", help="Read so many pieces of it; 32."
    ),
    click.option("--keep-f16", is_flag=True, help="Keep the converted file after quantizing."),
    programs,
    click.option("--force", is_flag=True, help="Do everything again."),
    click.option("--force-step", multiple=True, metavar="STEP", help="Do this step again: convert, quantize, …"),
    click.option("--fresh-tools", is_flag=True, help="Do again what another version of a tool made."),
    click.option("--lock-timeout", type=SECONDS, default=6 * 3600.0, metavar="S", help="Wait for others this long."),
)

compute = together(
    click.option(
        "-c", "--ctx-size", type=NumberOr("auto", least=1), help="Tokens; default: 4096 or what the model knows."
    ),
    click.option("-t", "--threads", type=click.IntRange(1), metavar="N", help="Default: the physical cores."),
    click.option("-ngl", "--gpu-layers", type=NumberOr("auto", "all"), help="Layers on the GPU."),
    click.option("--force-memory", is_flag=True, help="Start it although there is too little memory."),
    click.option("--llama-env", is_flag=True, help="Let LLAMA_ARG_* variables configure the server."),
    click.option("--load-timeout", type=SECONDS, default=300.0, metavar="S", help="Silence while loading, at most."),
)

profile = click.option("--profile", metavar="NAME", help="Options that `llama-runner tune` found for a model here.")

server = together(
    click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on."),
    click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any free one."),
    compute,
    click.option("--canary", is_flag=True, help="Ready only when the model has given a token."),
    click.option("--api-key", metavar="auto", help="auto: make a key and show it once. Yours: LLAMA_API_KEY."),
    click.option("--api-key-file", metavar="FILE", help="Keys, one per line, in a file that only you may read."),
    click.option("--insecure", is_flag=True, help="Let other machines use the server without a key."),
    click.option("--tls-cert", metavar="FILE", help="The certificate to serve HTTPS with."),
    click.option("--tls-key", metavar="FILE", help="Its private key."),
    profile,
)


keeping = together(
    click.option("--detach", is_flag=True, help="Return once it is ready; see ps, logs, stop, restart."),
    click.option(
        "--restart",
        type=click.Choice(["no", "on-failure", "always"]),
        default="no",
        show_default=True,
        help="Start it again when it ends.",
    ),
    click.option("--restart-limit", type=click.IntRange(0), default=5, metavar="N", help="Starts in vain in a row."),
)


PROGRAMS = (
    *("device", "binaries", "sha256", "source", "patches"),
    *("build_type", "cmake_args", "cflags", "cxxflags", "jobs"),
)
"""The wishes among the options ``programs``."""


def wishes(options: dict[str, Any]) -> dict[str, Any]:
    """Take the arguments of ``Runner.prepare`` out of a command's options."""
    sources = ("model", "hf_model", "gguf_path", "safetensors_dir", "demo")
    choosing = ("quantization", "filename", "pattern", "max_size", "fit_memory")
    tuning = (
        "imatrix",
        "calibration",
        "calibration_chunks",
        "tensor_types",
        "output_tensor_type",
        "token_embedding_type",
        "pure",
        "leave_output_tensor",
    )
    more = ("prune_layers", "keep_split", "allow_requantize", "quality", "quality_chunks")
    converting = ("outtype", "pre_tokenizer", "converter", "trust_remote_code", "mmproj", "lora", "keep_f16")
    names = (*sources, *choosing, *tuning, *more, *converting, *PROGRAMS, "update", "offline", "token_file")
    forced = ("all",) if options["force"] else options["force_step"]
    return {name: options[name] for name in names} | {
        "projector": not options["no_projector"],
        "force": forced,
        "fresh_tools": options["fresh_tools"],
    }


UNASKED = {"host": "127.0.0.1", "port": 0, "canary": False, "api_key": None, "insecure": False} | dict.fromkeys(
    ("api_key_file", "tls_cert", "tls_key", "profile")
)
"""Where a server is started that only the command itself asks."""

_FILES = ("api_key_file", "tls_cert", "tls_key")


def server_options(options: dict[str, Any]) -> ServerOptions:
    """Take the ``ServerOptions`` out of a command's options."""
    from llama_runner.serving.llama_server.launch_spec import ServerOptions  # noqa: PLC0415
    from llama_runner.store import layout  # noqa: PLC0415 - not for --help

    if options["api_key"] not in (None, "auto"):
        raise click.UsageError("a key among the arguments is seen by all; use LLAMA_API_KEY or --api-key-file")
    asked = ServerOptions(
        host=options["host"],
        port=options["port"],
        ctx_size=options["ctx_size"],
        threads=options["threads"],
        gpu_layers=options["gpu_layers"],
        extra=click.get_current_context().obj or (),
        inherit_environment=options["llama_env"],
        load_timeout=options["load_timeout"],
        canary=options["canary"],
        api_key=options["api_key"],
        insecure=options["insecure"],
        force_memory=options["force_memory"],
        **{name: options[name] and layout.user_path(options[name]).absolute() for name in _FILES},
    )
    if options["profile"] is None:
        return asked
    from llama_runner.serving import profiles  # noqa: PLC0415 - only for a profile

    return profiles.apply(
        profiles.read(profiles.directory(layout.find_root(options["root"])), options["profile"]), asked
    )
