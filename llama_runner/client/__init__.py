"""Talking to a running llama-server: typed calls over HTTP, for threads and for event loops."""
