"""Files of prompts in, files of completions out, on one machine and on Ray."""
