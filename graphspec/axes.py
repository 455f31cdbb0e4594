"""Axes by name, as patterns of `rearrange` write them: `(h c) n`."""

from __future__ import annotations


def axes_of(side: str) -> list[tuple[str, ...]]:
    """One side of a pattern: `(h c) n 1` -> [("h", "c"), ("n",), ()]. ValueError where it is no such thing."""
    groups: list[tuple[str, ...]] = []
    inside: list[str] | None = None
    for word in side.replace("(", " ( ").replace(")", " ) ").split():
        if word == "(" and inside is None:
            inside = []
        elif word == ")" and inside is not None:
            groups.append(tuple(inside))
            inside = None
        elif word != "1" and not word.isidentifier():
            raise ValueError(f"'{side.strip()}' is not a list of axes such as '(h c) n'")
        elif inside is None:
            groups.append(() if word == "1" else (word,))
        elif word != "1":
            inside.append(word)
    if inside is not None:
        raise ValueError(f"'{side.strip()}' has an open parenthesis")
    return groups
