"""The configuration file ``llama-runner.toml``: reading, checking, layers, changing it."""
