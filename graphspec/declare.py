"""What an op promises, written once: type rule, behaviour in time, parameters, weights, documentation.

    @op("x: float[T, c] @ r -> float[T/stride, units] @ r/stride",
        time={"x": "window(past=(k-1)*dilation, stride=stride)"}, example="x |> conv(64, k=5)")
    def conv(x, *, units: int, k: int = 3, stride: int = 1, dilation: int = 1):
        '''1-D causal convolution along time. ...'''
        from graphspec.ops.modules.conv import CausalConv
        return CausalConv(x.channels, units, k, stride, dilation)

The function's keyword parameters are the op's parameters in YAML, its docstring is the documentation and its body the
lowering (the only place that imports torch). It is called with the Types of the operands.

Signature grammar (graphspec/grammar.lark, `signature`): `operands -> results [where conditions]`.
An operand is `name: type`, `name?: type` (optional), `*name: type` (variadic). In a type
- the dtype is `float int bool any f32`, `int(n)` (binds or uses n), a meaning `categorical(n)`, `dist` (any meaning);
  in results also `event(d)` (what a distribution is over) and `join(a, b)` (elementwise joining, LANGUAGE 6);
  dims of a result may be a rule of compiler/axes.py, as `any[rearranged(pattern, x)]`;
- the dims are `...` (any axes, time included), a name (binds at its first place, equals after), or an expression;
  a leading `T` means the time axis and wants a timed value; for a variadic a name collects, and `sum(c)` adds up;
- `@ r` binds the rate; in results it is an expression of it, in conditions a number of Hz.
An op without `time` for an input reads all of it, past and future.
`affine_in` names the operands in which the op is linear, each element on its own, while the others are held: together
("a, b": a + b) or one at a time ("a | b": a * b). A loop through such ops only is a linear recurrence, run as a scan.
"""

from __future__ import annotations

import inspect
import types as python_types
import typing
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from graphspec.expression import Signature, parse_signature

REQUIRED = inspect.Parameter.empty


INITS = {"zeros": (), "ones": (), "normal": (1.0,), "uniform": (1.0,), "constant": (0.0,), "log_range": (1.0, 16.0)}
"""How a weight may begin, with the default of each argument: normal(std), uniform(bound), log_range(low, high)."""


@dataclass(frozen=True)
class Init:
    """The first values of a weight. `log_range`: logarithms of low .. high, evenly spaced along the last axis."""

    name: str
    arguments: tuple[float, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.arguments))})" if self.arguments else self.name


@dataclass(frozen=True)
class Parameter:
    """A compile-time argument. `choices` are the bare members of an enum."""

    name: str
    kind: str  # int | float | bool | text | list | enum | init | any
    default: Any = REQUIRED
    choices: tuple[str, ...] = ()
    optional: bool = False  # none is allowed

    @property
    def required(self) -> bool:
        return self.default is REQUIRED

    def __str__(self) -> str:
        kind = " | ".join(self.choices) if self.choices else self.kind
        return f"{self.name}: {kind}" + ("" if self.required else f" = {show(self.default)}")


@dataclass(frozen=True, eq=False)
class Declaration:
    """One op (or, without a signature, one setting such as `adamw`)."""

    name: str
    parameters: tuple[Parameter, ...]
    doc: str
    build: Callable[..., Any]
    signature: str = ""
    time: str | Mapping[str, str] = ""
    weights: Mapping[str, str] | None = None  # every weight it may have -> its tag of optimizer groups, or ""
    example: str = ""
    spelled: str = ""  # the notation that means this op: "a + b", "x[t-k]"
    number: Callable[..., Any] | None = None  # the same on compile-time numbers
    noise: str = ""  # type of a random operand the runtime fills, e.g. "uniform[..., c]"
    noise_when: str = ""  # only if this holds of the parameters
    training_noise: bool = False  # the noise is drawn in training only
    rearranges: bool = False  # elements are moved, not changed: `before` of integers travels through
    parts: str = ""  # extra named parameters of this kind, one result each (split)
    sizes: str = ""  # extra named parameters of this kind, for one result (rearrange's h=8)
    where: str = ""  # file of the declaration
    precision: str = ""  # "f32": computed in float32 under autocast, whatever its operands are
    grows: bool = False  # its streaming state gets longer as time goes by (attention to the whole past)
    pairs: str = ""  # when it compares every element with every other, as a condition of its parameters
    affine_in: str = ""  # operands in which it is linear, element by element: "a, b" together, "a | b" one at a time
    of: str = ""  # a face: another function of an instance of that op, over the same weights
    role: str = ""  # of a setting: source, optimizer, run

    @property
    def parsed(self) -> Signature:
        return parse_signature(self.signature)

    @cached_property
    def optional(self) -> frozenset[str]:
        """Names of the operands that may be left out; its module is given them by name."""
        return frozenset(d.name for d in self.parsed.operands if d.optional)

    def parameter(self, name: str) -> Parameter | None:
        return next((p for p in self.parameters if p.name == name), None)

    def window_of(self, operand: str) -> str:
        """The time rule of one operand, as text; empty when nothing was declared."""
        return self.time if isinstance(self.time, str) else self.time.get(operand, "")

    def linear_in(self, operands: Set[str]) -> frozenset[str]:
        """The operands, these among them, in which the op is linear together; none where it is not linear in these."""
        together = (frozenset(filter(None, g.replace(" ", "").split(","))) for g in self.affine_in.split("|"))
        return next((g for g in together if g and operands <= g), frozenset())

    @property
    def summary(self) -> str:
        return self.doc.split("\n", 1)[0]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.parameters))})"


@dataclass(frozen=True)
class MeaningDeclaration:
    """A family of distributions, `categorical(n)`: its event dtype, extra tensor axes, and how to build its functions.

    `event` and `axes` are expressions of the parameters, of which the last may have `defaults` (left out where they
    hold). `functions` maps `nll`, `draw`, ... to a callable that gets the Meaning and the op's parameters and returns
    the module. `fields` are what `d.scale` reads: pointwise ops of one operand that stand in no catalogue of their own.
    `noise` maps a function to the random numbers that one event takes, an expression of the parameters (one number,
    without an axis, where it says nothing). `without` maps a function to what it does not take here, `top_p` say.
    """

    name: str
    parameters: tuple[str, ...]
    event: str
    axes: tuple[str, ...]
    functions: Mapping[str, Callable[..., Any]]
    defaults: tuple[Any, ...] = ()
    fields: Mapping[str, Declaration] = field(default_factory=dict)
    noise: Mapping[str, str] = field(default_factory=dict)
    without: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def bound(self, arguments: Iterable[Any]) -> dict[str, Any]:
        """Every parameter by its name, those left out with their defaults."""
        given = tuple(arguments)
        rest = len(self.parameters) - len(given)
        return dict(zip(self.parameters, (*given, *(self.defaults[-rest:] if rest else ())), strict=True))

    def told(self, arguments: Iterable[Any]) -> tuple[Any, ...]:
        """The arguments without the last ones that say no more than the defaults."""
        out, defaults = list(arguments), list(self.defaults)
        while defaults and len(out) == len(self.parameters) - len(self.defaults) + len(defaults):
            if out[-1] != defaults.pop():
                break
            out.pop()
        return tuple(out)


class Catalogue:
    """All declarations a compilation may use. Names are unique, and so are spellings."""

    def __init__(self, declarations: Iterable[Declaration | MeaningDeclaration]):
        self.ops: dict[str, Declaration] = {}
        self.meanings: dict[str, MeaningDeclaration] = {}
        self.spellings: dict[str, Declaration] = {}
        self.faces: dict[tuple[str, str], Declaration] = {}  # (op of the instance, name) -> the other function
        for d in declarations:
            if isinstance(d, Declaration) and d.of:
                if (d.of, d.name) in self.faces:
                    raise ValueError(f"'{d.of}.{d.name}' is declared twice")
                self.faces[d.of, d.name] = d
                continue
            table: dict[str, Any] = self.meanings if isinstance(d, MeaningDeclaration) else self.ops
            if d.name in table:
                raise ValueError(f"'{d.name}' is declared twice")
            table[d.name] = d
            if isinstance(d, Declaration) and d.spelled:
                if d.spelled in self.spellings:
                    raise ValueError(f"'{d.spelled}' is spelled by two ops")
                self.spellings[d.spelled] = d

    @classmethod
    def of_modules(cls, modules: Iterable[python_types.ModuleType]) -> Catalogue:
        """Every declaration that stands in these modules."""
        kinds = (Declaration, MeaningDeclaration)
        return cls(v for m in modules for v in vars(m).values() if isinstance(v, kinds))


def op(
    signature: str,
    *,
    time: str | Mapping[str, str] = "",
    weights: Mapping[str, str] | None = None,
    example: str = "",
    spelled: str = "",
    number: Callable[..., Any] | None = None,
    noise: str = "",
    noise_when: str = "",
    training_noise: bool = False,
    rearranges: bool = False,
    parts: str = "",
    sizes: str = "",
    precision: str = "",
    grows: bool = False,
    pairs: str = "",
    affine_in: str = "",
    of: str = "",
    name: str = "",
) -> Callable[[Callable[..., Any]], Declaration]:
    """Declare an op; see the module's docstring."""

    def declare(build: Callable[..., Any]) -> Declaration:
        return Declaration(
            name=name or build.__name__.rstrip("_"),
            parameters=_parameters(build),
            doc=inspect.cleandoc(build.__doc__ or ""),
            build=build,
            signature=signature,
            time=time,
            weights=weights,
            example=example,
            spelled=spelled,
            number=number,
            noise=noise,
            noise_when=noise_when,
            training_noise=training_noise,
            rearranges=rearranges,
            parts=parts,
            sizes=sizes,
            precision=precision,
            grows=grows,
            pairs=pairs,
            affine_in=affine_in,
            of=of,
            where=build.__module__,
        )

    return declare


def setting(role: str) -> Callable[[Callable[..., Any]], Declaration]:
    """Declare a function of `data:` or `train:` (role: source, optimizer, run): all its parameters, no inputs.

    Its body checks the arguments, and raises ValueError with what is wrong.
    """

    def declare(build: Callable[..., Any]) -> Declaration:
        return Declaration(
            name=build.__name__,
            parameters=_parameters(build, all_of_them=True),
            doc=inspect.cleandoc(build.__doc__ or ""),
            build=build,
            where=build.__module__,
            role=role,
        )

    return declare


def _parameters(build: Callable[..., Any], all_of_them: bool = False) -> tuple[Parameter, ...]:
    found = []
    for p in inspect.signature(build, eval_str=True).parameters.values():
        if p.kind is p.VAR_KEYWORD or p.kind is p.VAR_POSITIONAL or (p.kind is not p.KEYWORD_ONLY and not all_of_them):
            continue
        kind, choices, optional = _kind(p.annotation)
        found.append(Parameter(p.name, kind, p.default, choices, optional))
    return tuple(found)


_KINDS = {Init: "init", int: "int", float: "float", bool: "bool", str: "text", list: "list", object: "any"}


def _kind(annotation: Any) -> tuple[str, tuple[str, ...], bool]:
    optional = False
    if isinstance(annotation, python_types.UnionType):
        members = [a for a in annotation.__args__ if a is not type(None)]
        optional = len(members) < len(annotation.__args__)
        annotation = members[0]
    if typing.get_origin(annotation) is typing.Literal:
        return "enum", typing.get_args(annotation), optional
    if typing.get_origin(annotation) is list:
        return "list", (), optional
    return _KINDS[annotation], (), optional


def show(value: Any) -> str:
    """A compile-time value as a spec writes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(show(v) for v in value) + "]"
    return str(value)


def values_told(names: Iterable[str], values: Mapping[str, Any]) -> str:
    """`size is 4, order is [0, 1]`: what is known of names that a condition speaks of, each once."""
    return ", ".join(f"{n} is {show(values[n])}" for n in dict.fromkeys(names) if n in values)
