"""HTTP: the API that clients of OpenAI's completions speak, and the page to write, to look and to understand."""
