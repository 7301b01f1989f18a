"""HTTP clients of a running llama-server with typed requests and replies, for threads and for event loops."""
