"""The running llama-server: what to launch, one process, when it is ready."""
