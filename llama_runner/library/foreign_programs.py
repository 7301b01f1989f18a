"""The programs whose models ``models import --from`` imports. ``foreign_stores`` reads what they keep."""

TOOLS = ("ollama", "huggingface", "lm-studio", "llama.cpp")
