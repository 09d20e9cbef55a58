"""A self-contained HTML page with a text whose tokens are colored by their surprisal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from gpt2.evaluation.units import Unit, escape_control

SHADES = (1, 2, 4, 6, 8, 10, 12, 15)  # bits per token at which each darker shade starts
STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1a1a1a; --shade: 214, 69, 44; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #e8e6e3; --shade: 235, 110, 70; } }
body { margin: 2rem auto; max-width: 52rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.7 system-ui, sans-serif; }
h1 { font-size: 1.3rem; } h2 { font-size: 1rem; margin-top: 2rem; overflow-wrap: anywhere; }
pre { font: 15px/1.8 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
pre span { border-radius: 3px; }
pre span:hover { outline: 1px solid currentColor; }
.end { opacity: 0.4; user-select: none; }
.legend span { padding: 0.1rem 0.6rem; font-size: 0.85rem; }
.none { text-decoration: underline dotted; }
""" + "".join(f".s{i + 1} {{ background: rgba(var(--shade), {(i + 1) / 10:.1f}); }}\n" for i in range(len(SHADES)))
HEAD = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Surprisal of a text</title>
<style>{STYLE}</style>
</head>
<body>
<h1>Surprisal of a text</h1>
<p class="legend">Surprisal in bits per token; darker tokens were less expected:
"""


def as_html(units: Iterable[Unit]) -> Iterator[str]:
    """Yield the page in pieces; the tooltip of each unit shows its numbers."""
    yield HEAD + "\n".join(f'<span class="s{i}">{label}</span>' for i, label in enumerate(_legend_labels())) + "</p>\n"
    name = None
    for unit in units:
        if unit.name != name:
            yield ("</pre>\n" if name is not None else "") + f"<h2>{escape(escape_control(unit.name))}</h2>\n<pre>"
            name = unit.name
        yield _span(unit)
    yield ("</pre>\n" if name is not None else "") + "</body>\n</html>\n"


def _legend_labels() -> list[str]:
    ranges = [f"{low} to {high}" for low, high in zip(SHADES, SHADES[1:])]
    return [f"below {SHADES[0]}", *ranges, f"{SHADES[-1]} or more"]


def _span(unit: Unit) -> str:
    if unit.bits is None:
        shade = "none"
        tooltip = "not scored"
    else:
        shade = f"s{sum(unit.bits >= bits * unit.tokens for bits in SHADES)}"
        tooltip = f"{unit.bits:.2f} bits, log-probability {unit.logprob:.4f}"
    if unit.rank is not None:
        tooltip += f", rank {unit.rank}"
    if unit.tokens > 1:
        tooltip += f", {unit.tokens} tokens"
    tooltip += "".join(f"\n{logprob:.3f}  {escape_control(token)}" for token, logprob in unit.top_tokens)
    lines = [escape(escape_control(line, keep="\t")) for line in unit.text.split("\n")]
    text = '<i class="end">↵</i>\n'.join(lines)
    return f'<span class="{shade}" title="{escape(tooltip)}">{text}</span>'
