"""Tables on the terminal."""

from __future__ import annotations

from graphspec.excerpt import shown

WIDE = 60  # letters of a cell


def print_table(title: str, heads: list[str], rows: list[list[str]]) -> None:
    """A table of text; for files and pipes whole, however wide."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE)
    for head in heads:
        table.add_column(Text(head))
    for row in rows:
        table.add_row(*(Text(shown(cell, WIDE)) for cell in row))
    console = Console()
    if not console.is_terminal:
        widest = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
        console = Console(width=sum(min(n, WIDE + 3) + 3 for n in widest) + 8)
    console.print(table if rows else Text(f"{title}: none"))
