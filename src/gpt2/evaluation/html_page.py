"""A page of HTML that needs nothing else: a text coloured by how surprising the model finds it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from gpt2.evaluation.units import Unit, printable

SHADES = (1, 2, 4, 6, 8, 10, 12, 15)  # bits for each token, from which on the next shade begins
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
<title>What the model thinks of a text</title>
<style>{STYLE}</style>
</head>
<body>
<h1>What the model thinks of a text</h1>
<p class="legend">Surprise in bits for each token, the darker the less expected:
"""


def as_html(units: Iterable[Unit]) -> Iterator[str]:
    """The page, in pieces. Each unit says its numbers where the pointer rests on it."""
    yield HEAD + "\n".join(f'<span class="s{i}">{text}</span>' for i, text in enumerate(_legend())) + "</p>\n"
    name = None
    for unit in units:
        if unit.name != name:
            yield ("</pre>\n" if name is not None else "") + f"<h2>{escape(printable(unit.name))}</h2>\n<pre>"
            name = unit.name
        yield _span(unit)
    yield ("</pre>\n" if name is not None else "") + "</body>\n</html>\n"


def _legend() -> list[str]:
    ends = [*map(str, SHADES)]
    return [f"below {ends[0]}", *(f"{least} to {most}" for least, most in zip(ends, ends[1:])), f"{ends[-1]} and more"]


def _span(unit: Unit) -> str:
    if unit.bits is None:
        shade, numbers = "none", "not scored"
    else:
        shade = f"s{sum(unit.bits >= least * unit.tokens for least in SHADES)}"
        numbers = f"{unit.bits:.2f} bits, log-probability {unit.logprob:.4f}"
    rank = f", rank {unit.rank}" if unit.rank is not None else ""
    tokens = f", {unit.tokens} tokens" if unit.tokens > 1 else ""
    likeliest = "".join(f"\n{logprob:.3f}  {printable(piece)}" for piece, logprob in unit.likeliest)
    lines = [escape(printable(line, but="\t")) for line in unit.text.split("\n")]
    text = '<i class="end">↵</i>\n'.join(lines)
    return f'<span class="{shade}" title="{escape(numbers + rank + tokens + likeliest)}">{text}</span>'
