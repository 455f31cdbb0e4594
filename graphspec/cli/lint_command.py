"""graphspec lint SPEC ... [PARAM=VALUE ...] [--all-choices] [--format human|json|sarif|github]"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace
from difflib import get_close_matches

from graphspec.cli.load import Files, check_spec, shipped, show, spec_path
from graphspec.diagnostic import Diagnostic, Findings, SpecError

# An override starts with a name and `=`; a path of a file `a=b.yaml` is written ./a=b.yaml
_OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=|=")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        nargs="+",
        metavar="SPEC|NAME=VALUE",
        help="specs: paths (with / or .yaml) or names of shipped ones; and, for all of them, a param (d=128) or a "
        "dotted path (train.batch=8)",
    )
    parser.add_argument(
        "--format",
        choices=("human", "json", "sarif", "github"),
        default="human",
        help="for people, on stderr (default); or on stdout, for programs: json, sarif (code scanners), "
        "github (annotations of a workflow)",
    )
    parser.add_argument(
        "--all-choices",
        action="store_true",
        help="check every option of every choice, one at a time; else only the chosen ones are typed",
    )
    parser.set_defaults(overrides=[])


def run(options: argparse.Namespace) -> int:
    specs, overrides = sorted_out(options.words, options.overrides)
    found: list[Diagnostic] = []
    wrong = False
    for spec in specs:
        findings = Findings()
        proven = ""
        try:
            checked = check_spec(spec, overrides, findings)
            found_here = findings.all()
            names = [a.name for a in checked.graph.assertions]
            proven = f"{checked.spec.name}: {len(checked.graph.values)} values, no errors" + (
                f"; causal: {', '.join(names)} proven" if names else ""
            )
        except SpecError as error:
            found_here = list(error.diagnostics)
            wrong = True
        if options.all_choices:
            others = other_choices(spec, overrides)
            more = [d for choice in others for d in _with_choice(spec, overrides, choice, found_here)]
            found_here += _once(more)
            if any(d.is_error for d in more):
                wrong, proven = True, ""
            elif proven and others:
                proven += f"; {len(others)} other option{'s' if len(others) > 1 else ''} checked"
        if options.format == "human":
            show(found_here)
            if proven:
                print(proven)
                sys.stdout.flush()  # in order with stderr
        found += found_here
    if options.format != "human":
        text = told(found, options.format)
        print(text, end="\n" if text else "")
    return 1 if wrong else 0


def other_choices(spec: str, overrides: list[str]) -> list[str]:
    """`backbone=mlp` for every option of every choice but those chosen. None where the spec cannot be resolved."""
    from graphspec.compiler.resolve import resolve
    from graphspec.reader import read_file

    try:
        path = spec_path(spec)
        choices = resolve(read_file(path), Files(path.parent), overrides).home.choices.values()
    except SpecError:
        return []  # told by the check
    return [f"{c.name}={option}" for c in choices for option in c.options if option != c.chosen]


def _with_choice(spec: str, overrides: list[str], choice: str, known: list[Diagnostic]) -> list[Diagnostic]:
    """What is said with this option and not without it."""
    findings = Findings()
    try:
        check_spec(spec, [*overrides, choice], findings)
        found = findings.all()
    except SpecError as error:
        found = list(error.diagnostics)
    told = {_mark(d) for d in known}
    return [replace(d, notes=(*d.notes, f"with {choice}")) for d in found if _mark(d) not in told]


def _once(found: list[Diagnostic]) -> list[Diagnostic]:
    """Each finding with the first option that it is found with."""
    return list({_mark(d): d for d in reversed(found)}.values())[::-1]


def _mark(d: Diagnostic) -> object:
    return d.code, d.message, d.span and (d.span.source.path, d.span.start, d.span.end)


def sorted_out(words: list[str], more: list[str]) -> tuple[list[str], list[str]]:
    """Specs, and overrides. What can be neither is left to the overrides, whose check says what it should be."""
    specs: list[str] = []
    overrides: list[str] = []
    for word in words:
        is_spec = not _OVERRIDE.match(word) and (not specs or _names_a_spec(word))
        (specs if is_spec else overrides).append(word)
    if not specs:  # d=128 and no spec: taken for the name of one, and so refused with the names there are
        specs.append(overrides.pop(0))
    return specs, overrides + more


def _names_a_spec(word: str) -> bool:
    if "/" in word or word.endswith((".yaml", ".yml")):
        return True
    return bool(get_close_matches(word, [p.stem for p in shipped().glob("*.yaml")], n=1))


def told(found: list[Diagnostic], format: str) -> str:
    """Diagnostics in a format for programs."""
    if format == "sarif":
        from graphspec.report_sarif import sarif

        return sarif(found)
    if format == "github":
        from graphspec.report_github import workflow_commands

        return workflow_commands(found)
    from graphspec.report import as_json

    return as_json(found)
