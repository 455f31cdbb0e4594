"""graphspec compare RUN_A RUN_B [...] [-o FILE]: runs side by side: the settings that differ, and their curves."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from graphspec.cli.load import Files, spec_path
from graphspec.cli.tables import print_table
from graphspec.diagnostic import SpecError, fail
from graphspec.span import Source, Span

if TYPE_CHECKING:
    from graphspec.document import Node
    from graphspec.runtime.curves import Metrics

ABSENT = "-"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="names under runs/, or paths; two or more")
    parser.add_argument("-o", "--output", metavar="FILE", help="the page (default: compare.html in the first run)")


def run(options: argparse.Namespace) -> int:
    folders = _folders(options.runs)
    metrics = {name: _metrics(folder) for name, folder in folders.items()}
    settings = {name: _settings(folder) for name, folder in folders.items()}
    differing, values = _differing(settings), _values(folders, metrics)
    heads = list(folders)
    print_table("settings that differ", ["setting", *heads], differing)
    print_table("last, and best at its step", ["column", *heads], values)
    _page(options, folders, metrics, differing, values)
    return 0


def _folders(runs: list[str]) -> dict[str, Path]:
    """Each run's folder by the name it is shown under. Not by runtime.run, which would load torch."""
    if len(runs) < 2:
        fail("GS0663", "compare takes two runs or more", None)
    found: dict[str, Path] = {}
    for text in runs:
        folder = Path(text) if "/" in text else Path("runs") / text
        if not (folder / "config.json").is_file():
            known = sorted(p.parent.name for p in Path("runs").glob("*/config.json"))
            notes = [f"under runs/: {', '.join(known) or 'nothing'}"]
            fail(
                "GS0624", f"there is no run '{folder}'", Span(Source("<command line>", text), 0, len(text)), notes=notes
            )
        if folder.resolve() in [f.resolve() for f in found.values()]:
            fail("GS0663", f"'{text[:60]}' is given twice", None)
        found[folder.name if folder.name not in found else str(folder)] = folder
    return found


def _metrics(folder: Path) -> Metrics:
    from graphspec.runtime.curves import read_metrics

    try:
        return read_metrics(folder / "metrics.csv")
    except (OSError, ValueError, UnicodeError) as error:
        _unusable(folder, "metrics.csv", error)


def _unusable(folder: Path, name: str, error: Exception) -> NoReturn:
    told = error.strerror if isinstance(error, OSError) else str(error)
    fail("GS0663", f"the {name} of '{folder}' cannot be used: {told}", None)


def _settings(folder: Path) -> dict[str, str]:
    """Every setting of a run by its dotted path: the spec with what it extends and what the command line set.

    Where the files it extends are gone, its params and overrides.
    """
    from graphspec.cli.resolve_command import _with_params
    from graphspec.compiler.resolve import resolve
    from graphspec.reader import read_file

    try:
        config = json.loads((folder / "config.json").read_text())
        params, overrides, environment = config["params"], config["overrides"], config["environment"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        _unusable(folder, "config.json", error)
    found = {"spec": str(config.get("spec", ABSENT))}
    try:
        files = Files(spec_path(config["spec"]).parent)
        found |= _leaves(_with_params(resolve(read_file(folder / "spec.yaml"), files, overrides)).root)
    except SpecError:
        found |= dict(o.partition("=")[::2] for o in overrides)
    found = {f"params.{name}": str(value) for name, value in params.items()} | found
    found |= {o.partition("=")[0]: o.partition("=")[2] for o in overrides if o.startswith("data=")}
    return found | {f"environment.{name}": str(value) for name, value in environment.items()}


def _leaves(node: Node, path: str = "") -> dict[str, str]:
    """Each entry that is no mapping, by its dotted path, as written on one line."""
    from graphspec.document import Mapping as Tree

    if not isinstance(node, Tree):
        return {path: " ".join(node.span.text.split())}
    found: dict[str, str] = {}
    for entry in node.entries:
        found |= _leaves(entry.value, f"{path}.{entry.key.text}" if path else entry.key.text)
    return found


def _differing(settings: Mapping[str, Mapping[str, str]]) -> list[list[str]]:
    """A row a setting: its path, and its text in each run."""
    every = dict.fromkeys(path for run in settings.values() for path in run)
    rows = [[path, *(run.get(path, ABSENT) for run in settings.values())] for path in every]
    return [row for row in rows if len(set(row[1:])) > 1 and row[0] != "doc"]


def _scores(folder: Path) -> dict[str, float]:
    """What `graphspec eval` found, where it was asked."""
    try:
        found = json.loads((folder / "test.json").read_text())
        return {n: x for n, x in found.items() if isinstance(x, (int, float))}
    except (OSError, ValueError, AttributeError):
        return {}


def _values(folders: Mapping[str, Path], metrics: Mapping[str, Metrics]) -> list[list[str]]:
    """A row a column: its last value in each run, and its best with the step where it was; then what eval found."""
    from graphspec.runtime.curves import best, columns, judged

    rows = [["step", *(str(max(c[-1][0] for c in m.curves.values())) for m in metrics.values())]]
    for column in columns(list(metrics.values())):
        row = [column]
        for m in metrics.values():
            curve = m.curves.get(column)
            if curve is None:
                row.append(ABSENT)
            elif not judged(column):
                row.append(f"{curve[-1][1]:.5g}")
            else:
                step, value = best(column, curve)
                row.append(f"{curve[-1][1]:.5g}, {value:.5g} at {step}")
        rows.append(row)
    tests = [_scores(folder) for folder in folders.values()]
    for name in dict.fromkeys(n for scores in tests for n in scores):
        rows.append([f"test.{name}", *(f"{s[name]:.5g}" if name in s else ABSENT for s in tests)])
    if any(m.lost for m in metrics.values()):
        rows.append(["not finite", *(str(m.lost) for m in metrics.values())])
    return rows


def _page(
    options: argparse.Namespace,
    folders: Mapping[str, Path],
    metrics: Mapping[str, Metrics],
    differing: list[list[str]],
    values: list[list[str]],
) -> None:
    from graphspec.runtime.curves import page

    path = Path(options.output) if options.output else next(iter(folders.values())) / "compare.html"
    if path.suffix.lower() not in (".html", ".htm"):
        fail("GS0663", f"the page is a .html file, not '{path}'", None)
    tables: list[Any] = [
        ("Settings that differ", ["setting", *folders], differing),
        ("Last, and best at its step", ["column", *folders], values),
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(metrics, tables), encoding="utf-8")
    except OSError as error:
        fail("GS0663", f"'{path}' cannot be written: {error.strerror}", None)
    print(path)
