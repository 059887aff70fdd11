"""Pieces of pictures of architectures, and their colours in light and dark."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


def number(value: float) -> str:
    """A coordinate, to a tenth."""
    return f"{value:.1f}".removesuffix(".0")


def rect(x: float, y: float, width: float, height: float, kind: str, radius: float) -> str:
    """A rectangle of a class, with round corners."""
    return f'<rect class="{kind}" x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}" rx="{number(radius)}"/>'


def text(x: float, y: float, words: str, kind: str) -> str:
    """Words of a class, from a place on."""
    return f'<text class="{kind}" x="{number(x)}" y="{number(y)}">{escape(words)}</text>'


def whole(width: float, height: float, title: str, told: str, parts: Iterable[str]) -> str:
    """The picture, with its title and what it shows in words."""
    size = f'viewBox="0 0 {number(width)} {number(height)}" width="{number(width)}" height="{number(height)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="unstuck-net" role="img" {size}>'
    names = f"<title>{escape(title)}</title><desc>{escape(told)}</desc><style>{_STYLE}</style>"
    return "\n".join([head, names, rect(0, 0, width, height, "page", 10), *parts, "</svg>"]) + "\n"


_STYLE = """
.unstuck-net { max-width: 100%; height: auto; font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  --n-text: var(--text, #1b1d20); --n-soft: var(--soft, #5b6168); --n-line: var(--line, #d3d3cd); --n-card: var(--card, #fff);
  --n-faint: var(--faint, #f4f4f1); --n-accent: var(--accent, #1f63b5); --n-pale: var(--pale, #a9c6e8); --n-check: var(--check, #b4530a);
  --n-1: #b4530a; --n-2: #1a7346; --n-3: #7b3fa6; --n-4: #b3261e; --n-5: #00727f; }
@media screen and (prefers-color-scheme: dark) { .unstuck-net {
  --n-text: var(--text, #e7e8e6); --n-soft: var(--soft, #a3a9af); --n-line: var(--line, #3b4148); --n-card: var(--card, #1b1e22);
  --n-faint: var(--faint, #262a2f); --n-accent: var(--accent, #74b0f4); --n-pale: var(--pale, #3d5f86); --n-check: var(--check, #f2a65a);
  --n-1: #f2a65a; --n-2: #6fd39b; --n-3: #cda6f2; --n-4: #ff8a80; --n-5: #5fd0dc; } }
.unstuck-net .page { fill: var(--n-card); }
.unstuck-net text { fill: var(--n-text); font-variant-numeric: tabular-nums; }
.unstuck-net .strong { font-weight: 600; }
.unstuck-net .soft, .unstuck-net .note { fill: var(--n-soft); }
.unstuck-net .small, .unstuck-net .note { font-size: 11.5px; }
.unstuck-net .small { fill: var(--n-soft); }
.unstuck-net .middle { text-anchor: middle; }
.unstuck-net text.end { text-anchor: end; }
.unstuck-net .box { fill: var(--n-faint); stroke: var(--n-line); }
.unstuck-net rect.end { fill: none; stroke: var(--n-soft); }
.unstuck-net .bar { fill: var(--n-pale); }
.unstuck-net .kernel { fill: var(--n-accent); fill-opacity: .22; stroke: var(--n-accent); }
.unstuck-net .grid { stroke: var(--n-accent); stroke-opacity: .55; stroke-width: .6; }
.unstuck-net .link path { fill: none; stroke: var(--n-soft); stroke-width: 1.5; }
.unstuck-net .link .tip { fill: var(--n-soft); stroke: none; }
.unstuck-net .padded path { stroke-dasharray: 5 3; }
.unstuck-net .link:hover path { stroke-width: 3; }
.unstuck-net .from0 path { stroke: var(--n-accent); } .unstuck-net .from0 .tip { fill: var(--n-accent); }
.unstuck-net .from1 path { stroke: var(--n-1); } .unstuck-net .from1 .tip { fill: var(--n-1); }
.unstuck-net .from2 path { stroke: var(--n-2); } .unstuck-net .from2 .tip { fill: var(--n-2); }
.unstuck-net .from3 path { stroke: var(--n-3); } .unstuck-net .from3 .tip { fill: var(--n-3); }
.unstuck-net .from4 path { stroke: var(--n-4); } .unstuck-net .from4 .tip { fill: var(--n-4); }
.unstuck-net .from5 path { stroke: var(--n-5); } .unstuck-net .from5 .tip { fill: var(--n-5); }
.unstuck-net .rule { stroke: var(--n-line); }
.unstuck-net .curve { fill: none; stroke: var(--n-accent); stroke-width: 1.6; stroke-linecap: round; }
.unstuck-net .sign { font-size: 17px; font-weight: 600; }
.unstuck-net .written, .unstuck-net .entered { stroke: var(--n-check); stroke-width: 1.6; }
.unstuck-net .pill { fill: none; stroke: var(--n-soft); }
.unstuck-net .pill.output { stroke: var(--n-accent); }
.unstuck-net text.output { fill: var(--n-accent); }
.unstuck-net text.state { fill: var(--n-check); }
.unstuck-net .letter { font-style: italic; font-weight: 600; }
.unstuck-net .index { font-size: 9.5px; }
"""
