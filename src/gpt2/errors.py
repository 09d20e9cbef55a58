"""What the library raises; a command turns each into one line on stderr and its exit status."""


class GPT2Error(Exception):
    """Something failed: a file is missing or damaged, a disk is full, a server does not answer (exit status 1)."""


class UsageError(GPT2Error, ValueError):
    """A value was given that is not allowed (exit status 2)."""
