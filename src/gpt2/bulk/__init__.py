"""Bulk jobs: a file of prompts in, a file of completions out, on one machine or on a Ray cluster."""
