"""libyaml's complaints in the words of someone who writes specs.

libyaml stops at its first error. So each answer may name a stretch to blank out (`Mask`): the reader reads on without
it and finds the other mistakes of the same file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from yaml import YAMLError

from graphspec import yaml_flow as flow
from graphspec.diagnostic import Diagnostic, Edit, Fix, Related
from graphspec.excerpt import shown
from graphspec.span import Source, Span

_NO_SPACE = re.compile(r"([A-Za-z_][\w.]*):(?=[^\s:])")
_OPENS_WITH_A_BRACKET = re.compile(r"[^\n]*?:\s+([\[{])")
_EQUALS = re.compile(r"([A-Za-z_][\w.]*)\s*=(?!=)")


@dataclass(frozen=True)
class Mask:
    """Read start..end as if it held only `filler`: 'x' keeps a value there, ' ' leaves nothing."""

    start: int
    end: int
    filler: str


class Fault:
    """One complaint, and what to blank out to read on. Without a mask nothing behind it can be trusted."""

    def __init__(self, diagnostic: Diagnostic, *masks: Mask):
        self.diagnostic, self.masks = diagnostic, masks


@dataclass(frozen=True)
class LastScalar:
    """The scalar read just before the complaint."""

    start: int
    end: int
    quoted: bool


def explain(error: YAMLError, source: Source, masked: str, last: LastScalar | None) -> Fault:
    """One complaint of libyaml about `masked` (the text with earlier faults blanked out), as a Diagnostic."""
    return _Explainer(source, masked, last).explain(error)


class _Explainer:
    def __init__(self, source: Source, masked: str, last: LastScalar | None):
        self.source, self.text, self.last = source, masked, last

    def explain(self, error: YAMLError) -> Fault:
        problem = getattr(error, "problem", None) or "this is not valid YAML"
        context = getattr(error, "context", None) or ""
        at = self._place(getattr(error, "problem_mark", None))
        opened = self._place(getattr(error, "context_mark", None), at)
        if "quoted scalar" in context:
            return self._quoted(problem, at, opened)
        if "tab character" in problem or self._char(at) == "\t":
            return self._tab(at)
        if context in ("while parsing a flow mapping", "while parsing a flow sequence"):
            return self._flow(at, opened)
        if "mapping values are not allowed" in problem:
            return self._second_colon(at)
        if "unexpected ':'" in problem:
            return Fault(Diagnostic("GS0116", "a ':' stands where no key is", self._span(at, at + 1)))
        if "could not find expected ':'" in problem:
            return self._no_colon(opened)
        if "scanning a block scalar" in context:
            return self._block_scalar(opened, problem)
        if "cannot start any token" in problem or "mapping keys are not allowed" in problem:
            return self._reserved(at)
        if "scanning an alias" in context or "scanning an anchor" in context:
            return self._reserved(opened)
        if "tag" in context or "tag" in problem:
            return self._tag(opened if "tag" in context else at)
        if "<document start>" in problem:
            return Fault(second_document(self._word(at)))
        if "block sequence entries are not allowed" in problem:
            return self._list_on_key_line(at)
        if "did not find expected key" in problem or "expected '-' indicator" in problem:
            return self._misplaced(at, opened)
        if "expected node content" in problem:
            fix = Fix("write a value here, or take the sign away")
            return Fault(Diagnostic("GS0102", "a value is missing here", self._word(at), fixes=(fix,)))
        return Fault(Diagnostic("GS0102", f"this is not valid YAML: {problem}", self._word(at)))

    # places

    def _place(self, mark: object, default: int = 0) -> int:
        index = getattr(mark, "index", None)
        return default if index is None else min(index, len(self.text))

    def _char(self, at: int) -> str:
        return self.text[at] if at < len(self.text) else ""

    def _span(self, start: int, end: int) -> Span:
        return Span(self.source, start, end)

    def _word(self, at: int) -> Span:
        end = at
        while end < len(self.text) and not self.text[end].isspace():
            end += 1
        return self._span(at, end)

    def _line(self, at: int) -> tuple[int, int]:
        """Where the line of `at` begins and ends, without its break."""
        start = self.text.rfind("\n", 0, at) + 1
        end = self.text.find("\n", at)
        end = len(self.text) if end < 0 else end
        return start, start + len(self.text[start:end].rstrip())

    def _rest(self, at: int) -> int:
        """Where the value that starts at `at` ends on its line: before a comment, without trailing spaces."""
        end = self._line(at)[1]
        comment = self.text.find(" #", at, end)
        end = comment if comment >= 0 else end
        return at + len(self.text[at:end].rstrip())

    def _quoting(self, start: int, end: int, why: str) -> Fix:
        in_quotes = flow.quoted(self.source.text[start:end])
        if not in_quotes:
            return Fix(why)
        return Fix(f"{why}: {shown(in_quotes)}", (Edit(self._span(start, end), in_quotes),))

    # complaints

    def _quoted(self, problem: str, at: int, opened: int) -> Fault:
        if "unexpected" in problem:  # end of stream, document indicator
            return Fault(unclosed(self._span(opened, opened + 1)))
        fix = Fix("use single quotes, in which a backslash is just a backslash")
        return Fault(
            Diagnostic(
                "GS0102",
                "YAML does not know this escape in double quotes",
                self._span(at, min(at + 1, len(self.text))),
                fixes=(fix,),
            )
        )

    def _tab(self, at: int) -> Fault:
        start, end = self._line(at)
        while at < end and self._char(at) not in "\t":
            at += 1
        line = self.text[start:end]
        lead = len(line) - len(line.lstrip(" \t"))
        edits: tuple[Edit, ...] = ()
        if start <= at < start + lead:
            spaces = line[:lead].replace("\t", "  ")
            edits = (Edit(self._span(start, start + lead), spaces),)
        return Fault(
            Diagnostic(
                "GS0115",
                "a tab stands where YAML wants spaces",
                self._span(at, at + 1),
                fixes=(Fix("indent with spaces, two a level", edits),),
            )
        )

    def _flow(self, at: int, opened: int) -> Fault:
        found = flow.intended(self.text, opened)
        if found is None:
            return Fault(unclosed(self._span(opened, opened + 1)))
        if flow.cut_places(self.text, found):
            return flow_trap(self.source, self.text, found)
        if self._char(at) == ":" and self.last:
            return self._second_colon(at)
        closer = "}" if self._char(opened) == "{" else "]"
        return Fault(
            Diagnostic(
                "GS0102",
                f"between '{self._char(opened)}' and '{closer}' a ',' is missing here",
                self._word(at),
                fixes=(Fix(f"separate the entries by ',', or close with '{closer}'"),),
            )
        )

    def _second_colon(self, at: int) -> Fault:
        last = self.last
        colon = self._span(at, min(at + 1, len(self.text)))
        if last is None or not last.start < last.end <= at:
            return Fault(Diagnostic("GS0116", "a ':' stands where no key is", colon))
        swallowed = "\n" in self.text[last.start : last.end]
        end = at + 1 if self._in_flow(last.start) else self._rest(last.start)
        mask = Mask(last.start, end, "x")
        if flow.unpaired(self.text[last.start : last.end]):
            edit = Edit(self._span(at, at + 1 + (self.text[at + 1 : at + 2] == " ")), "=")
            fix = Fix("give arguments of a call with '=', not ':'", (edit,))
            diagnostic = Diagnostic(
                "GS0116", "a ':' stands inside the parentheses of an expression", colon, fixes=(fix,)
            )
            return Fault(diagnostic, *([] if swallowed else [mask]))
        if swallowed:
            return self._swallowed(last, at)
        key = self.source.text[last.start : last.end]
        fixes = [Fix("write one `key: value` a line; arguments of a call are given with '='")]
        if end > at + 1:
            fixes.append(self._quoting(last.start, end, "if it is text, quote it"))
        message = f"a second ': ' in one line: '{shown(key)}' would be a key inside a value"
        return Fault(Diagnostic("GS0116", message, colon, fixes=tuple(fixes)), mask)

    def _in_flow(self, at: int) -> bool:
        start = self._line(at)[0]
        before = self.text[start:at]
        return before.count("{") + before.count("[") > before.count("}") + before.count("]")

    def _swallowed(self, last: LastScalar, at: int) -> Fault:
        """`lr:1e-3` above, or a line indented too deep: the lines were read as one long text."""
        start = self._line(at)[0]
        indent = len(self.text[start:at]) - len(self.text[start:at].lstrip(" "))
        key = self._span(start + indent, at)
        first = self._span(last.start, self._rest(last.start))
        m = _NO_SPACE.match(self.text, last.start)
        if m:
            return self._missing_space(m, Mask(*self._line(last.start), " "))
        first_line = self._line(last.start)
        if not self.text[first_line[0] : last.start].strip() and last.start - first_line[0] == indent:
            # the first line below a key, and no key itself
            fix = Fix("write `key: value`")
            return Fault(
                Diagnostic("GS0102", "this line is not `key: value`", first, fixes=(fix,)), Mask(*first_line, " ")
            )
        above = first.source.place(last.start)[0]
        return Fault(
            Diagnostic(
                "GS0102",
                f"'{shown(key.text)}' is indented so deep that YAML reads it as the rest of the value in line {above}",
                key,
                related=(Related("the value that swallows it", first),),
                fixes=(Fix("indent it like the keys around it; if it is text, quote the whole value"),),
            )
        )

    def _missing_space(self, m: re.Match[str], mask: Mask) -> Fault:
        name = shown(m.group(1))
        title = f"write a space behind the colon: `{name}: …`"
        return Fault(
            Diagnostic(
                "GS0102",
                f"there is no space behind '{name}:', so this is no key",
                self._span(m.start(), m.end()),
                fixes=(Fix(title, (Edit(self._span(m.end(), m.end()), " "),)),),
            ),
            mask,
        )

    def _no_colon(self, opened: int) -> Fault:
        start, end = self._line(opened)
        mask = Mask(start, end, " ")
        if m := _NO_SPACE.match(self.text, opened):
            return self._missing_space(m, mask)
        fix = Fix(
            "write `key: value`; to continue the expression of the line above, indent this one deeper than its key"
        )
        if m := _EQUALS.match(self.text, opened):
            fix = Fix("use ':' between a key and its value", (Edit(self._span(m.end(1), m.end()), ":"),))
        span = self._span(opened, max(self._rest(opened), opened))
        return Fault(Diagnostic("GS0102", "this line is not `key: value`", span, fixes=(fix,)), mask)

    def _block_scalar(self, at: int, problem: str) -> Fault:
        start, end = self._line(at)
        if "comment or line break" not in problem:
            return Fault(Diagnostic("GS0102", f"this is not a valid block text: {problem}", self._word(at)))
        if not self.text[start:at].strip():
            message = f"this line begins with '{self._char(at)}' but does not continue the line above"
            fix = Fix("indent it deeper than the key it belongs to")
            span = self._span(at, self._rest(at))
            return Fault(Diagnostic("GS0102", message, span, fixes=(fix,)), Mask(start, end, " "))
        if self.last and self.last.quoted and start <= self.last.end <= at:
            return self._after_value(at)
        return self._reserved(at)

    def _behind_brackets(self, at: int) -> Fault | None:
        """`[a, b] |> cat`: the value was over at its closing bracket, and `at` stands behind it."""
        start, end = self._line(at)[0], self._rest(at)
        m = _OPENS_WITH_A_BRACKET.match(self.text, start, at)
        found = flow.intended(self.text, m.start(1)) if m else None
        if m is None or found is None or found.end > at or "\n" in self.text[found.start : found.end]:
            return None
        opener = self._char(found.start)
        fix = Fix("a list stands inside a call, as cat(a, b): begin with a name, a number or '('")
        rest = re.fullmatch(r"\s*\|>\s*(\w+)", self.text[found.end : end])
        if rest and opener == "[":
            call = f"{rest[1]}({self.text[found.start + 1 : found.end - 1].strip()})"
            fix = Fix(f"write {shown(call)}", (Edit(self._span(found.start, end), call),))
        message = f"an expression cannot begin with '{opener}': for YAML the value ends at the closing bracket"
        diagnostic = Diagnostic("GS0117", message, self._span(found.start, found.end), fixes=(fix,))
        return Fault(diagnostic, Mask(found.start, end, "x"))

    def _reserved(self, at: int) -> Fault:
        behind = self._behind_brackets(at)
        if behind is not None:
            return behind
        char, end = self._char(at), self._rest(at)
        if self._in_flow(at):
            found = re.compile(r"[^,\[\]{}\n]*").match(self.text, at)
            end = max(found.end() if found else at + 1, at + 1)
        if char in "@`%&":
            fix = self._quoting(at, end, "quote it if it is text")
        elif char == "*":
            fix = Fix("begin with a name, a number or '(': turn the product round")
        else:
            fix = Fix("begin with a name, a number or '('")
        message = f"a value cannot begin with '{shown(char)}', a sign YAML keeps for itself"
        diagnostic = Diagnostic("GS0117", message, self._span(at, at + 1), fixes=(fix,))
        return Fault(diagnostic, Mask(at, max(end, at + 1), "x"))

    def _tag(self, at: int) -> Fault:
        span = self._word(at)
        return Fault(refused_tag(span), Mask(span.start, span.end, " "))

    def _list_on_key_line(self, at: int) -> Fault:
        end = self._rest(at)
        fixes = (
            Fix("write the list below its key, one `- item` a line, or as `[a, b]`"),
            Fix("if a minus is meant, write it close: -x", (Edit(self._span(at, at + 2), "-"),)),
        )
        message = "a list cannot begin on the line of its key"
        return Fault(Diagnostic("GS0102", message, self._span(at, at + 1), fixes=fixes), Mask(at, end, "x"))

    def _misplaced(self, at: int, opened: int) -> Fault:
        start = self._line(at)[0]
        if self.text[start:at].strip():
            return self._behind_brackets(at) or self._after_value(at)
        if self._char(at) == ":":
            fix = Fix("write the key before the ':'")
            return Fault(Diagnostic("GS0113", "an entry has no key", self._span(at, at + 1), fixes=(fix,)))
        column, wanted = at - start + 1, opened - self._line(opened)[0] + 1
        where = self.source.place(opened)[0]
        related = (Related(f"what it would belong to begins here, in column {wanted}", self._word(opened)),)
        if column == wanted:
            kinds = ("a list item", "keys") if self._char(at) == "-" else ("a key", "list items")
            message = f"{kinds[0]} stands among {kinds[1]}"
            fix = Fix("one mapping or list holds one kind: move this under a key of its own")
        else:
            message = (
                f"this line begins in column {column}, but the lines it belongs to begin in column {wanted} or deeper"
            )
            if column > wanted:
                message = f"this line begins in column {column}, like no line it could belong to"
            fix = Fix(f"align it with the line it belongs to (line {where} begins in column {wanted})")
        return Fault(Diagnostic("GS0102", message, self._span(at, self._rest(at)), related=related, fixes=(fix,)))

    def _after_value(self, at: int) -> Fault:
        end = self._rest(at)
        start = self.last.start if self.last and self._line(at)[0] <= self.last.start < at else at
        message = "there is text behind the end of the value"
        fix = Fix("take it away, or put the whole value inside one pair of quotes or brackets")
        diagnostic = Diagnostic("GS0102", message, self._span(at, max(end, at)), fixes=(fix,))
        return Fault(diagnostic, *([Mask(at, end, " ")] if start < at else []))


def flow_trap(source: Source, text: str, found: flow.Intended) -> Fault:
    """GS0104 for a flow collection in `text` whose expressions YAML cuts."""
    cut = flow.cut_places(text, found)
    diagnostic = flow.trap(source, found, cut, block_key_column(text, found.start))
    return Fault(diagnostic, *(Mask(a, b, "x") for a, b in cut))


def unclosed(opener: Span) -> Diagnostic:
    """GS0114 for a bracket or quote."""
    sign = opener.text
    closer_of = {"{": "}", "[": "]"}
    closer = closer_of.get(sign, sign)
    kind = "bracket" if sign in closer_of else "quote"
    message = f"the {kind} {sign} is opened here and never closed"
    return Diagnostic("GS0114", message, opener, fixes=(Fix(f"write the closing {closer}"),))


def second_document(span: Span) -> Diagnostic:
    """GS0111."""
    fix = Fix("keep one spec a file; use `extends` or `use` to build on another")
    return Diagnostic("GS0111", "a second document begins here, and a file holds one spec", span, fixes=(fix,))


def refused_tag(span: Span) -> Diagnostic:
    """GS0107."""
    behind = span.source.text[span.end : span.end + 1] == " "
    edit = Edit(Span(span.source, span.start, span.end + behind), "")
    fix = Fix("take the tag away; kinds follow from what is written", (edit,))
    return Diagnostic("GS0107", f"the tag '{shown(span.text)}' is refused: a spec holds data only", span, fixes=(fix,))


def block_key_column(text: str, opened: int) -> int | None:
    """The 1-based column of the block key whose value opens at `opened`, on the same line; else None."""
    start = text.rfind("\n", 0, opened) + 1
    before = text[start:opened]
    m = re.fullmatch(r"(\s*)[^\s{}\[\],'\"#][^{}\[\],'\"#]*:\s+", before)
    return len(m.group(1)) + 1 if m and not m.group(1).strip(" ") and not before.lstrip().startswith("- ") else None
