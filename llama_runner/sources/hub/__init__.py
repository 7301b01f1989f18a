"""Models on the Hugging Face Hub: a name is resolved to a pin, a pin to files.

``parse_model_name``, ``file_names`` and ``file_selection`` are pure: they parse what the user wrote, interpret the
names of a repository's files, and select among them. ``pins`` stores resolved names. ``client`` queries the Hub's API,
``download`` fetches files; only these two load huggingface_hub, and a warm start loads neither.
"""
