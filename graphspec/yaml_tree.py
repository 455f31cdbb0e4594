"""libyaml's events to the spanned tree, without recursion, under limits of depth and size."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from yaml import YAMLError
from yaml.cyaml import CParser  # type: ignore[attr-defined]
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from graphspec import yaml_flow as flow
from graphspec.diagnostic import Diagnostic, Edit, Fix, Related
from graphspec.document import Entry, Mapping, Node, Scalar, Sequence, Value
from graphspec.excerpt import shown
from graphspec.span import Source, Span
from graphspec.yaml_faults import Fault, LastScalar, Mask, explain, flow_trap, refused_tag, second_document
from graphspec.yaml_scalars import OddNumber, resolve

MAX_DEPTH = 32
MAX_NODES = 50_000
MAX_MISTAKES = 20

_HEADER = re.compile(r"[|>][-+0-9]*[ \t]*(#[^\n]*)?(\r?\n|\Z)")
_ALIAS = re.compile(r"[&*][\w-]+")


@dataclass
class Built:
    """The tree, if it could be built; the mistakes on the way; and the faults that stopped or bent it.

    A fault with masks asks to build again from the text with these stretches blanked out.
    """

    root: Mapping | None = None
    mistakes: list[Diagnostic] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def build(source: Source, masked: str) -> Built:
    """Build the tree of `masked` (source.text with earlier faults blanked out, offset by offset the same)."""
    return _Builder(source, masked).run()


class _Open:
    """A mapping or list that is being filled."""

    __slots__ = ("start", "flow", "is_mapping", "items", "seen", "key", "is_key", "trapped")

    def __init__(self, start: int, flow: bool, is_mapping: bool, is_key: bool):
        self.start, self.flow, self.is_mapping, self.is_key = start, flow, is_mapping, is_key
        self.items: list = []
        self.seen: dict[str, Scalar] = {}
        self.key: Scalar | None = None
        self.trapped = False  # what is in it is already known to be misread


class _Stop(Exception):
    """Nothing behind this place can be read."""


class _Builder:
    def __init__(self, source: Source, text: str):
        self.source, self.text = source, text
        self.built = Built()
        self.stack: list[_Open] = []
        self.nodes = self.documents = 0
        self.last: LastScalar | None = None
        self.alias: Span | None = None

    def run(self) -> Built:
        parser = CParser(self.text)
        try:
            while (event := parser.get_event()) is not None:
                self._take(event)
                if self.built.faults:  # a flow collection that YAML cuts: mend it first
                    return self.built
        except _Stop:
            return self.built
        except YAMLError as error:
            self._complain(error)
            return self.built
        if self.built.root is None and not self.built.mistakes and self.text == self.source.text:
            fix = Fix("begin with `graphspec: 1` and `model: NAME`")
            self._add(Diagnostic("GS0112", "the file holds no spec: it is empty", self._span(0, 0), fixes=(fix,)))
        return self.built

    def _take(self, event: Any) -> None:
        kind = type(event)
        if kind is ScalarEvent:
            self._scalar(event)
        elif kind is MappingStartEvent or kind is SequenceStartEvent:
            self._open(event, kind is MappingStartEvent)
        elif kind is MappingEndEvent or kind is SequenceEndEvent:
            self._close(event.end_mark.index)
        elif kind is AliasEvent:
            self._alias(event)
        elif kind is DocumentStartEvent:
            self.documents += 1
            if self.documents > 1:
                self._add(second_document(self._span(event.start_mark.index, event.end_mark.index)))
                raise _Stop

    def _complain(self, error: YAMLError) -> None:
        alias = self.alias
        if alias and self._same_line(alias, error):
            # `*d * 2`: the alias is the mistake, and already reported; its line cannot be read
            self.built.mistakes = [d for d in self.built.mistakes if d.span is None or d.span.start != alias.start]
            end = self.text.find("\n", alias.start)
            end = len(self.text) if end < 0 else end
            self.built.faults.append(Fault(_refused_alias(alias), Mask(alias.start, end, "x")))
            return
        self.built.faults.append(explain(error, self.source, self.text, self.last))

    def _same_line(self, alias: Span, error: YAMLError) -> bool:
        mark = getattr(error, "problem_mark", None)
        return mark is not None and "\n" not in self.text[alias.start : mark.index]

    # nodes

    def _scalar(self, event: Any) -> None:
        self._count(event.start_mark.index)
        start, end, text = event.start_mark.index, event.end_mark.index, event.value
        if event.anchor or event.tag:
            start = min(self._properties(event, start), end)
        style = event.style
        plain = not style  # '' from the C parser
        top = self.stack[-1] if self.stack else None
        wants_key = top is not None and top.is_mapping and top.key is None
        content = None
        value: Value = text
        if plain:
            if top is not None and top.flow:
                self._check_cut(top, text, start, end)
            if not wants_key:
                value = self._value(text, start, end)
        elif style in "|>":
            raw = self.text[start:end]
            end = start + len(raw.rstrip())
            header = _HEADER.match(raw)
            body = start + (header.end() if header else 1)
            inside = self.text[body:end]
            content = self._span(end - len(inside.lstrip()) if inside else end, end)
        else:
            content = self._span(start + 1, max(end - 1, start + 1))
        self.last = LastScalar(start, end, not plain)
        span = self._span(start, end)
        scalar = Scalar(text, span, value, plain, content or span)
        if top is not None and wants_key:
            self._key(top, scalar)
        else:
            self._attach(scalar)

    def _value(self, text: str, start: int, end: int) -> Value:
        try:
            return resolve(text)
        except OddNumber as odd:
            span = self._span(start, end)
            edits = (Edit(span, odd.write[0]),) if odd.write else ()
            message = odd.message
            self._add(Diagnostic(odd.code, message, span, fixes=(Fix(odd.advice, edits),)))
            return text

    def _key(self, top: _Open, key: Scalar) -> None:
        top.key = key
        if key.plain:
            self._check_plain_key(key)
        first = top.seen.setdefault(key.text, key)
        if first is not key:
            where = self._where()
            message = f"key '{shown(key.text)}' is given twice{where}, first in line {first.span.line}"
            related = (Related("first given here", first.span),)
            fix = Fix("delete one of the two, or rename it")
            self._add(Diagnostic("GS0101", message, key.span, related=related, fixes=(fix,)))

    def _check_plain_key(self, key: Scalar) -> None:
        text = key.text
        if text == "<<":
            fix = Fix("share with `blocks`, `shared` or `extends`")
            self._add(Diagnostic("GS0103", "merge keys '<<' are refused", key.span, fixes=(fix,)))
            return
        try:
            is_text = isinstance(resolve(text), str)
        except OddNumber:
            is_text = False
        if is_text:
            return
        if not text:
            fix = Fix("write the key before the ':'")
            self._add(Diagnostic("GS0113", "an entry has no key", key.span, fixes=(fix,)))
            return
        quoted = f'"{text}"'
        fix = Fix(f"quote it: {shown(quoted)}", (Edit(key.span, quoted),))
        self._add(Diagnostic("GS0113", f"key '{shown(text)}' must be text", key.span, fixes=(fix,)))

    def _open(self, event: Any, is_mapping: bool) -> None:
        start = event.start_mark.index
        self._count(start)
        if len(self.stack) >= MAX_DEPTH:
            message = f"this is nested deeper than {MAX_DEPTH} levels, the limit of a spec"
            fix = Fix("name the inner part: a value, or a block of its own")
            self._add(Diagnostic("GS0802", message, self._span(start, start + 1), fixes=(fix,)))
            raise _Stop
        if event.anchor or event.tag:
            start = self._properties(event, start)
        top = self.stack[-1] if self.stack else None
        is_key = top is not None and top.is_mapping and top.key is None
        if is_key:
            kind = "mapping" if is_mapping else "list"
            fix = Fix("write a name as the key")
            span = self._span(start, start + 1)
            self._add(Diagnostic("GS0113", f"a {kind} cannot be a key: keys must be text", span, fixes=(fix,)))
        elif top is None and not is_mapping:
            self._not_a_mapping("a list", self._span(start, start + 1))
        self.stack.append(_Open(start, bool(event.flow_style), is_mapping, is_key))
        if is_key:
            self.stack[-1].trapped = self.stack[-2].trapped = True  # `{{b}}`: one mistake, not three

    def _close(self, end: int) -> None:
        top = self.stack.pop()
        if top.is_key:
            self._placeholder_key(self._span(top.start, end))
            return
        if not top.flow or self.text[end - 1 : end] not in ("}", "]"):
            # libyaml ends a block where the next token begins
            last = top.items[-1] if top.items else None
            if isinstance(last, Entry):
                last = last.value
            end = last.span.end if last is not None else top.start + 1
        span = self._span(top.start, end)
        node = Mapping(tuple(top.items), span) if top.is_mapping else Sequence(tuple(top.items), span)
        self._attach(node)

    def _alias(self, event: Any) -> None:
        start, end = event.start_mark.index, event.end_mark.index
        self._count(start)
        span = self.alias = self._span(start, end)
        self._add(_refused_alias(span))
        if not self.stack:
            raise _Stop
        top = self.stack[-1]
        if top.is_mapping and top.key is None:
            self._placeholder_key(span)
        else:
            self._attach(Scalar("", span, None, True, span))

    def _placeholder_key(self, span: Span) -> None:
        self.stack[-1].key = Scalar("", span, "", False, span)

    def _attach(self, node: Node) -> None:
        if not self.stack:
            if isinstance(node, Mapping):
                self.built.root = node
            elif isinstance(node, Scalar):
                self._not_a_mapping("a single value", node.span)
            return
        top = self.stack[-1]
        if not top.is_mapping:
            top.items.append(node)
            return
        key, top.key = top.key, None
        assert key is not None  # libyaml gives key and value in turn
        if top.flow and isinstance(node, Scalar) and node.plain and not node.text and not top.trapped:
            self._check_has_value(key, node)
        top.items.append(Entry(key, node))

    # checks

    def _check_cut(self, top: _Open, text: str, start: int, end: int) -> None:
        """A flow scalar whose parentheses do not pair up was cut by YAML inside an expression."""
        if top.trapped or not flow.unpaired(text):
            return
        found = flow.intended(self.text, top.start) if self.text[top.start] in "{[" else None
        if found and flow.cut_places(self.text, found):
            self.built.faults.append(flow_trap(self.source, self.text, found))
            return
        top.trapped = True
        message = f"the parentheses of '{shown(text)}' do not pair up, so YAML cuts the expression at its commas"
        fix = Fix("close the parentheses; inside {} and [] put expressions in quotes, or write block style")
        self._add(Diagnostic("GS0104", message, self._span(start, end), fixes=(fix,)))

    def _check_has_value(self, key: Scalar, value: Scalar) -> None:
        span = key.span
        if ":" in self.text[span.end : value.span.end + 1] or self.text[span.start : span.end] != span.text:
            return  # it has a colon, or an earlier fault was blanked out here
        name, colon, rest = key.text.partition(":")
        if key.plain and colon and rest:
            at = key.span.start + len(name) + 1
            fix = Fix("write a space behind the colon", (Edit(self._span(at, at), " "),))
        else:
            fix = Fix("inside {} write `key: value`; a list stands in []")
        self._add(Diagnostic("GS0118", f"'{shown(key.text)}' has no value", key.span, fixes=(fix,)))

    def _properties(self, event: Any, start: int) -> int:
        """Refuse an anchor or a tag; where the node itself begins."""
        m = re.compile(r"(?:([&!])\S*\s+)?(?:([&!])\S*)?\s*").match(self.text, start)
        for word in re.finditer(r"\S+", self.text[start : m.end() if m else start]):
            span = self._span(start + word.start(), start + word.end())
            if self.text[span.start] == "!":
                self._add(refused_tag(span))
            elif self.text[span.start] == "&":
                self._add(_refused_alias(span))
        return m.end() if m else start

    def _not_a_mapping(self, what: str, span: Span) -> None:
        m = re.match(r"[A-Za-z_][\w.]*:(?=\S)", span.text)
        fix = Fix("begin with `graphspec: 1` and `model: NAME`")
        if m:
            at = self._span(span.start + m.end(), span.start + m.end())
            fix = Fix("write a space behind the colon", (Edit(at, " "),))
        message = f"a spec must be a mapping of sections, found {what}"
        self._add(Diagnostic("GS0112", message, span, fixes=(fix,)))
        raise _Stop

    def _count(self, at: int) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            message = f"this spec has more than {MAX_NODES:,} keys and values, the limit"
            fix = Fix("let `repeat` and comprehensions do the repeating")
            self._add(Diagnostic("GS0803", message, self._span(at, min(at + 1, len(self.text))), fixes=(fix,)))
            raise _Stop

    def _where(self) -> str:
        names = [level.key.text for level in self.stack if level.is_mapping and level.key][:-1]
        return f" in '{shown('.'.join(names))}'" if names else ""

    def _span(self, start: int, end: int) -> Span:
        return Span(self.source, start, end)

    def _add(self, diagnostic: Diagnostic) -> None:
        span = diagnostic.span
        if span and self.text[span.start : span.end] != self.source.text[span.start : span.end]:
            return  # about a stretch that was blanked out, so a fault of it is known already
        if len(self.built.mistakes) < MAX_MISTAKES:
            self.built.mistakes.append(diagnostic)


def _refused_alias(span: Span) -> Diagnostic:
    """GS0103 for `&name` or `*name`."""
    if span.text[:1] == "*":
        what = f"the alias '{shown(span.text)}' is refused"
        fix = Fix(
            "if a product is meant, turn it round or write `(d)*...`; to share, use `blocks`, `shared` or `extends`"
        )
    else:
        what = f"the anchor '{shown(span.text)}' is refused"
        fix = Fix("share with `blocks`, `shared` or `extends`")
    return Diagnostic("GS0103", f"{what}: every part of a spec stands in one place", span, fixes=(fix,))
