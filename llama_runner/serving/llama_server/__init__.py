"""What is particular to llama-server: its arguments, readiness and memory."""
