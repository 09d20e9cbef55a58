"""The HTTP server: OpenAI's completions API, and a page to write, compare and explain text."""
