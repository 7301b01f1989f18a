"""Models on the Hugging Face Hub: names become pins, pins become files.

``names`` and ``listing`` and ``selection`` are pure: what the user wrote, what a repository's file names mean, which of
them is meant. ``pins`` keeps what a name resolved to. ``client`` asks the Hub, ``transfer`` fetches files; only
these two load huggingface_hub, and a warm start loads neither.
"""
