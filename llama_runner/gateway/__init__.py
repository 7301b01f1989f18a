"""The gateway: many models behind one endpoint for clients of OpenAI, Anthropic and Ollama."""
