"""Channels put together, taken apart and picked; no element changes."""

from graphspec.declare import op


@op(
    "*xs: any[..., c] @ r -> any[..., sum(c)] @ r",
    time="pointwise()",
    rearranges=True,
    example="cat(a, b)",
)
def cat(*xs):
    """The channels of several values side by side, in the order given.

    xs: any[..., c_i], equal in all axes but the channels -> any[..., sum of c_i].
    """
    from graphspec.ops.modules.shape import Cat

    return Cat()


# The channel axis is called `whole` because `split(c=8, ...)` may well have a part called c.
@op(
    "x: any[..., whole] @ r -> any[..., part] @ r where sum(parts) == whole",
    time="pointwise()",
    rearranges=True,
    parts="int",
    example="x |> split(a=8, b=8)",
)
def split(x, **parts: int):
    """Neighbouring groups of channels as a record, in the order named: `split(a=8, b=8)` has fields a and b.

    x: any[..., c] -> for each part any[..., its width]. The widths add up to c.
    """
    from graphspec.ops.modules.shape import Split

    if sum(parts.values()) != x.channels:
        raise ValueError(f"split: the parts have {sum(parts.values())} channels together, x has {x.channels}")
    return Split(tuple(parts.values()))


@op(
    "x: any[..., c] @ r -> any[..., count] @ r where first >= 0, count >= 1, first + count <= c",
    time="pointwise()",
    rearranges=True,
    example="x |> take(0)",
)
def take(x, *, first: int, count: int = 1):
    """Some neighbouring channels. x: any[..., c] -> any[..., count], channels first .. first + count - 1."""
    from graphspec.ops.modules.shape import Take

    return Take(first, count)
