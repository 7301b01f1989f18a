"""Turn any model source into a running llama-server, doing only the work that has not been done."""

__version__ = "0.1.0"
