"""Options that decide what is made: the model, its source, conversion, quantization, llama.cpp's programs."""

from __future__ import annotations

from llama_runner.core.option_definition import Option

MODEL = (
    Option(
        "hf_model",
        ("--hf-model",),
        "model",
        "Serve a model from the Hugging Face Hub.",
        metavar="ORG/MODEL[@REV][:QUANT]",
        common=True,
    ),
    Option("gguf_path", ("--gguf-path",), "model", "Serve a GGUF file from where it is.", kind="file", common=True),
    Option(
        "safetensors_dir",
        ("--safetensors-dir",),
        "model",
        "Convert and serve a directory with config.json, tokenizer and safetensors.",
        kind="directory",
        common=True,
    ),
    Option(
        "demo",
        ("--demo",),
        "model",
        "Serve the tiny model that this package carries.",
        kind="flag",
        default=False,
        common=True,
    ),
    Option(
        "lora",
        ("--lora",),
        "model",
        "Load a LoRA adapter: a GGUF file, a PEFT directory or ORG/NAME of the Hub. May be repeated.",
        kind="list",
        default=(),
        metavar="[NAME=]PATH[:SCALE]",
    ),
    Option(
        "mmproj",
        ("--mmproj",),
        "model",
        "Convert the multimodal projector (mmproj) of a vision model that is given as safetensors.",
        kind="flag",
        default=False,
    ),
    Option(
        "projector",
        ("--no-mmproj",),
        "model",
        "Do not load the multimodal projector (mmproj) of a vision model.",
        kind="flag",
        default=True,
        default_text="",
        parameter="no_projector",
        old_flags=("--no-projector",),
    ),
)

HUB = (
    Option("filename", ("--filename",), "Hub", "Take this GGUF file of the repository.", metavar="NAME"),
    Option("pattern", ("--pattern",), "Hub", "Take the GGUF file whose name matches: '*UD-Q4*'.", metavar="GLOB"),
    Option(
        "max_size", ("--max-size",), "Hub", "Take the best GGUF file up to this size: 8G.", kind="size", metavar="SIZE"
    ),
    Option(
        "fit_memory",
        ("--fit-memory",),
        "Hub",
        "Take the best GGUF file that fits into the memory of this machine.",
        kind="flag",
        default=False,
    ),
    Option(
        "update",
        ("--update",),
        "Hub",
        "Ask the Hub which commit the name means now, and fetch what changed.",
        kind="flag",
        default=False,
    ),
    Option(
        "offline",
        ("--offline",),
        "Hub",
        "Use no network; fail if something is missing.",
        kind="flag",
        default=False,
        environment="HF_HUB_OFFLINE",
    ),
    Option(
        "token_file",
        ("--token-file",),
        "Hub",
        "Read the token for the Hub from this file.",
        kind="file",
        default_text="HF_TOKEN, or the token of `hf auth login`",
    ),
)

CONVERSION = (
    Option(
        "outtype",
        ("--outtype",),
        "conversion",
        "Type that safetensors are converted to; auto keeps their own 16-bit type, q8_0 is not quantized further.",
        kind="choice",
        default="auto",
        choices=("auto", "bf16", "f16", "f32", "q8_0"),
    ),
    Option(
        "converter",
        ("--converter",),
        "conversion",
        "Converter: native, llama.cpp's own script (official), or auto: native where the architecture is known.",
        kind="choice",
        default="auto",
        choices=("auto", "native", "official"),
    ),
    Option(
        "trust_remote_code",
        ("--trust-remote-code",),
        "conversion",
        "Let the official converter run Python code that comes with the model.",
        kind="flag",
        default=False,
    ),
    Option(
        "pre_tokenizer",
        ("--pre-tokenizer",),
        "conversion",
        "llama.cpp's name of the pre-tokenizer, for a tokenizer that is not recognised.",
        metavar="NAME",
    ),
    Option(
        "keep_f16",
        ("--keep-f16",),
        "conversion",
        "Keep the converted file after quantizing.",
        kind="flag",
        default=False,
    ),
    Option(
        "check",
        ("--no-check",),
        "conversion",
        "Do not compare tokens and template of a converted model with its original; LLAMA_RUNNER_NO_CHECK=1 does it.",
        kind="flag",
        default=True,
        default_text="",
        parameter="no_check",
    ),
)

QUANTIZATION = (
    Option(
        "quantization",
        ("-q", "--quantization"),
        "quantization",
        "Quantization type: q8_0, q6_k, …; f16, bf16 or f32 for none; several with commas share one conversion.",
        metavar="TYPE",
        default_text="q4_k_m for safetensors",
        common=True,
    ),
    Option("imatrix", ("--imatrix",), "quantization", "Quantize with this importance matrix.", kind="file"),
    Option("calibration", ("--calibration",), "quantization", "Make an importance matrix from this text.", kind="file"),
    Option(
        "calibration_chunks",
        ("--calibration-chunks",),
        "quantization",
        "Number of 512-token chunks of the calibration text.",
        kind="integer",
        least=1,
        metavar="N",
        default_text="all",
    ),
    Option(
        "tensor_types",
        ("--tensor-type",),
        "quantization",
        "Type of the tensors whose name matches. May be repeated.",
        kind="list",
        default=(),
        metavar="NAME=TYPE",
    ),
    Option(
        "output_tensor_type", ("--output-tensor-type",), "quantization", "Type of the output tensor.", metavar="TYPE"
    ),
    Option(
        "token_embedding_type",
        ("--token-embedding-type",),
        "quantization",
        "Type of the token embeddings.",
        metavar="TYPE",
    ),
    Option("pure", ("--pure",), "quantization", "Quantize every tensor to the same type.", kind="flag", default=False),
    Option(
        "leave_output_tensor",
        ("--leave-output-tensor",),
        "quantization",
        "Do not quantize the output tensor.",
        kind="flag",
        default=False,
    ),
    Option("prune_layers", ("--prune-layers",), "quantization", "Leave out these layers.", metavar="N,N,…"),
    Option(
        "keep_split",
        ("--keep-split",),
        "quantization",
        "Write as many files as the source has.",
        kind="flag",
        default=False,
    ),
    Option(
        "allow_requantize",
        ("--allow-requantize",),
        "quantization",
        "Quantize a model that is already quantized.",
        kind="flag",
        default=False,
    ),
    Option(
        "quality",
        ("--quality",),
        "quantization",
        "Measure perplexity and KL divergence against the unquantized model over this text.",
        kind="file",
    ),
    Option(
        "quality_chunks",
        ("--quality-chunks",),
        "quantization",
        "Number of 512-token chunks of the quality text.",
        kind="integer",
        default=32,
        least=1,
        metavar="N",
    ),
)

PROGRAMS = (
    Option(
        "device",
        ("--backend", "--device"),
        "programs",
        "Backend that llama.cpp computes on: cpu, cpu-portable, cuda, hip, metal, openblas, vulkan; +rpc may follow.",
        metavar="NAME",
        default="auto",
        default_text="the best that machine and compilers support",
    ),
    Option(
        "binaries",
        ("--binaries",),
        "programs",
        "Where llama.cpp's programs come from: build, prebuilt[:TAG], system, package, the name of an installed build, "
        "a directory, or an archive as file or URL.",
        metavar="FROM",
        default="auto",
        default_text="built here; unpacked on Windows",
    ),
    Option("sha256", ("--sha256",), "programs", "Digest of the archive that --binaries names.", metavar="DIGEST"),
)

BUILD = (
    Option(
        "source",
        ("--source",),
        "build",
        "Build this llama.cpp: a directory, or a git URL with @COMMIT.",
        metavar="DIR|URL@COMMIT",
        default_text="the pinned one",
    ),
    Option(
        "patches",
        ("--patch",),
        "build",
        "Apply this patch before building. May be repeated.",
        kind="list",
        default=(),
        metavar="FILE|URL",
    ),
    Option(
        "build_type",
        ("--build-type",),
        "build",
        "CMake's build type.",
        kind="choice",
        default="Release",
        choices=("Release", "RelWithDebInfo", "MinSizeRel", "Debug"),
    ),
    Option(
        "cmake_args",
        ("--cmake-arg",),
        "build",
        "Option for CMake. May be repeated.",
        kind="list",
        default=(),
        metavar="NAME=VALUE",
    ),
    Option(
        "cflags", ("--cflags",), "build", "Flags for the C compiler, after those of CMake.", default="", metavar="FLAGS"
    ),
    Option(
        "cxxflags",
        ("--cxxflags",),
        "build",
        "Flags for the C++ compiler, after those of CMake.",
        default="",
        metavar="FLAGS",
    ),
    Option(
        "jobs",
        ("--jobs",),
        "build",
        "Number of compilers at once.",
        kind="integer",
        least=1,
        metavar="N",
        default_text="one for each core that memory allows",
    ),
)

REMOTE = (
    Option(
        "remote_store",
        ("--remote-store",),
        "pipeline",
        "Fetch what another machine made from this store, instead of making it: a directory, s3://BUCKET/PREFIX, "
        "gs://…, abfs://…, sftp://… or https://….",
        environment="LLAMA_RUNNER_REMOTE_STORE",
        metavar="DIR|URL",
    ),
    Option(
        "remote_push",
        ("--remote-push",),
        "pipeline",
        "Put into the remote store what it does not have yet.",
        kind="flag",
        default=False,
    ),
)

PIPELINE = (
    Option("force", ("--force",), "pipeline", "Run every step again.", kind="flag", default=()),
    Option(
        "force_step",
        ("--force-step",),
        "pipeline",
        "Run this step again: convert, quantize, … May be repeated.",
        kind="list",
        default=(),
        metavar="STEP",
    ),
    Option(
        "fresh_tools",
        ("--fresh-tools",),
        "pipeline",
        "Run again what another version of a tool made.",
        kind="flag",
        default=False,
    ),
    Option(
        "lock_timeout",
        ("--lock-timeout",),
        "pipeline",
        "Seconds to wait for another process that makes the same artifact.",
        kind="number",
        default=21600.0,
        default_text="6 hours",
        least=0,
        metavar="S",
        reader="command",
    ),
    Option(
        "locked",
        ("--locked",),
        "pipeline",
        "Take the commit that the lock file has, and fail if anything differs from the lock file.",
        kind="flag",
        default=False,
    ),
    Option(
        "lock_file",
        ("--lock-file",),
        "pipeline",
        "The lock file; with it, --locked need not be given.",
        kind="file",
        default_text="llama-runner.lock, in the working directory or the nearest one above it",
    ),
)

ARTIFACTS = (*MODEL, *HUB, *CONVERSION, *QUANTIZATION, *PROGRAMS, *BUILD, *PIPELINE, *REMOTE)
