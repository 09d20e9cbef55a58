"""The old module `gpt_2_simple.src`: OpenAI's modules, each imported on first use."""

from typing import Any

import gpt_2_simple


def __getattr__(name: str) -> Any:
    """Import one of OpenAI's modules on first use."""
    if name not in ("encoder", "model", "sample"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(gpt_2_simple, name)
