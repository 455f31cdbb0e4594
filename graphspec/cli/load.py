"""What every command needs: find a spec, hand the compiler its catalogue and libraries, print what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphspec.diagnostic import Diagnostic, Findings, SpecError, did_you_mean, fail
from graphspec.document import Document, Entry
from graphspec.document import Mapping as Tree
from graphspec.span import Source, Span

if TYPE_CHECKING:
    from graphspec.compiler.pipeline import Checked


def shipped() -> Path:
    """The folder of shipped specs."""
    return Path(next(iter(import_module("graphspec.specs").__path__)))


def library_blocks() -> list[tuple[str, dict[str, Entry]]]:
    """The shipped libraries by name, each with its blocks."""
    from graphspec.reader import read_file

    found = []
    for path in sorted(shipped().glob("*/*.yaml")):
        blocks = read_file(path).root.get("blocks")
        entries = blocks.entries if isinstance(blocks, Tree) else ()
        found.append((f"{path.parent.name}/{path.stem}", {e.key.text: e for e in entries}))
    return found


def spec_path(name: str) -> Path:
    """SPEC on the command line: a path if it has `/` or `.yaml`, else a shipped name."""
    if "/" in name or name.endswith((".yaml", ".yml")):
        return Path(name)
    path = shipped() / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in shipped().glob("*.yaml"))
        argument = Source("<command line>", name)
        fail(
            "GS0501",
            f"there is no shipped spec '{name[:60]}'{did_you_mean(name, known)}",
            Span(argument, 0, len(name)),
            notes=[f"shipped: {', '.join(known)}", "a path has '/' or ends in .yaml"],
        )
    return path


class Files:
    """Finds what `use:` and `extends:` name: in the spec's own folder, else among what is shipped."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.found: dict[str, Document] = {}
        self.folders: dict[str, Path] = {}  # where the files lie that were extended

    def __call__(self, name: str, span: Span) -> Document:
        from graphspec.reader import read_file

        if name not in self.found:
            self.found[name] = read_file(self._path(name, span))
        return self.found[name]

    def base(self, name: str, span: Span, by: Document) -> Document:
        """What a spec extends: a file beside the one that says so, or a shipped spec by its name."""
        from graphspec.reader import read_file

        beside = self.folders.get(by.source.path, self.folder)
        part = Path(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
        if part.is_absolute() or ".." in part.parts or "\\" in name or ":" in name:
            fail("GS0510", f"the path '{name[:60]}' leaves the spec's folder", span)
        for folder in (beside, shipped()):
            path = folder / part
            if len(name) < 200 and path.is_file():
                if not path.resolve().is_relative_to(folder.resolve()):
                    fail("GS0510", f"'{name[:60]}' is a link to outside the folder", span)
                document = read_file(path)
                self.folders[document.source.path] = path.parent
                return document
        known = [p.stem for p in shipped().glob("*.yaml")] + [p.name for p in beside.glob("*.yaml")]
        fail(
            "GS0510",
            f"there is no spec '{name[:60]}' to extend{did_you_mean(name, known)}",
            span,
            notes=["a file beside this one, as base.yaml, or the name of a shipped spec"],
        )

    def with_block(self, name: str) -> list[str]:
        """The shipped libraries that have a block of this name."""
        return [library for library, blocks in library_blocks() if name in blocks]

    def _path(self, name: str, span: Span) -> Path:
        part = Path(name if name.endswith(".yaml") else f"{name}.yaml")
        if part.is_absolute() or ".." in part.parts or "\\" in name or ":" in name:
            fail("GS0502", f"the library path '{name[:60]}' leaves the spec's folder", span)
        for folder in (self.folder, shipped()):
            path = folder / part
            if len(name) < 200 and path.is_file():
                if not path.resolve().is_relative_to(folder.resolve()):
                    fail("GS0502", f"'{name[:60]}' is a link to outside the folder", span)
                return path
        known = [str(p.relative_to(shipped()).with_suffix("")) for p in shipped().glob("*/*.yaml")]
        fail(
            "GS0502",
            f"there is no library '{name[:60]}'{did_you_mean(name, known)}",
            span,
            notes=[f"shipped: {', '.join(sorted(known))}"],
        )


def check_spec(name: str, overrides: Iterable[str] = (), findings: Findings | None = None) -> Checked:
    """Read and check the spec called `name`, with overrides such as `d=128`."""
    from graphspec.reader import read_file

    path = spec_path(name)
    return check_document(read_file(path), path.parent, overrides, findings)


def check_document(
    document: Document, folder: Path, overrides: Iterable[str] = (), findings: Findings | None = None
) -> Checked:
    """Check a document whose libraries and data lie beside it in `folder`."""
    from graphspec.compiler.pipeline import check
    from graphspec.ops import catalogue
    from graphspec.runtime.declared import settings

    return check(document, catalogue(), Files(folder), settings(), overrides, findings)


def compile_spec(name: str, overrides: Iterable[str] = (), *, seed: int = 0, device: str = "cpu") -> Any:
    """The lowered model of a spec: an nn.Module with `whole` and `step` forms, and `stream()`."""
    from graphspec.cli.compiled import Compiled
    from graphspec.compiler.lower import lower

    return lower(check_spec(name, overrides), seed=seed, device=device, of=Compiled)


def show(diagnostics: Iterable[Diagnostic], format: str = "human") -> None:
    """Print findings: for people on stderr, JSON on stdout."""
    from graphspec import report

    found = list(diagnostics)
    if format == "json":
        print(report.as_json(found))
    elif found:
        print(report.human(found, color=sys.stderr.isatty()), file=sys.stderr)


def failed(error: SpecError, format: str = "human") -> int:
    """Print the errors; exit code 1."""
    show(error.diagnostics, format)
    return 1
