"""Compares a GGUF file with the model that it was made of: tokens, chat template, special tokens, logits."""
