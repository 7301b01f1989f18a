"""Model sources: local files, and repositories on the Hugging Face Hub."""
