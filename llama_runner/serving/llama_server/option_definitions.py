"""Options of the server that ``ServerOptions`` has as fields, each defined once."""

from __future__ import annotations

from llama_runner.core.option_definition import Option

LISTENING = (
    Option(
        "host",
        ("--host",),
        "server",
        "Address to listen on; a path that ends in .sock is a UNIX socket.",
        default="127.0.0.1",
        metavar="ADDRESS",
        reader="server",
        common=True,
    ),
    Option(
        "port",
        ("--port",),
        "server",
        "Port to listen on; 0 takes a free one.",
        kind="integer",
        default=8080,
        least=0,
        most=65535,
        metavar="N",
        reader="server",
        common=True,
    ),
)

COMPUTE = (
    Option(
        "ctx_size",
        ("-c", "--ctx-size"),
        "server",
        "Context in tokens; auto: what fits into memory.",
        kind="integer or word",
        choices=("auto",),
        least=1,
        default_text="4096, or less if the model was trained for less",
        reader="server",
        common=True,
    ),
    Option(
        "threads",
        ("-t", "--threads"),
        "server",
        "Number of CPU threads.",
        kind="integer",
        least=1,
        metavar="N",
        default_text="the physical cores that this process may use",
        reader="server",
    ),
    Option(
        "gpu_layers",
        ("-ngl", "--gpu-layers"),
        "server",
        "Number of layers on the GPU.",
        kind="integer or word",
        choices=("auto", "all"),
        least=0,
        default_text="llama-server's own",
        reader="server",
        common=True,
    ),
    Option(
        "force_memory",
        ("--force-memory",),
        "server",
        "Start the server even if memory does not suffice.",
        kind="flag",
        default=False,
        reader="server",
    ),
    Option(
        "inherit_environment",
        ("--llama-env",),
        "server",
        "Let LLAMA_ARG_* environment variables configure the server.",
        kind="flag",
        default=False,
        parameter="llama_env",
        reader="server",
    ),
    Option(
        "load_timeout",
        ("--load-timeout",),
        "server",
        "Fail after S seconds without output while loading.",
        kind="number",
        default=300.0,
        least=0,
        metavar="S",
        reader="server",
    ),
)

READINESS = (
    Option(
        "purpose",
        ("--purpose",),
        "server",
        "What the server answers with: text, embeddings, or rerank: scores of documents.",
        kind="choice",
        default="auto",
        choices=("auto", "text", "embeddings", "rerank"),
        default_text="auto: what the model is made for",
        reader="server",
    ),
    Option(
        "canary",
        ("--canary",),
        "server",
        "Report the server as ready only after it has generated a token.",
        kind="flag",
        default=False,
        reader="server",
    ),
)

ACCESS = (
    Option(
        "api_key",
        ("--api-key",),
        "access",
        "auto: make a key and show it once. A key of your own comes from LLAMA_API_KEY or --api-key-file.",
        metavar="auto",
        environment="LLAMA_API_KEY",
        secret=True,
        reader="server",
    ),
    Option(
        "api_key_file",
        ("--api-key-file",),
        "access",
        "File with the keys that the server accepts, one a line; readable by its owner only.",
        kind="file",
        reader="server",
    ),
    Option(
        "insecure",
        ("--insecure",),
        "access",
        "Let other machines use the server without a key.",
        kind="flag",
        default=False,
        reader="server",
    ),
    Option(
        "tls_cert", ("--tls-cert",), "access", "Certificate to serve HTTPS with, as PEM.", kind="file", reader="server"
    ),
    Option(
        "tls_key", ("--tls-key",), "access", "Private key of the certificate, as PEM.", kind="file", reader="server"
    ),
)

SERVER = (*LISTENING, *COMPUTE, *READINESS, *ACCESS)
