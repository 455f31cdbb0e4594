"""Amplitudes to levels and back, on one fixed symmetric grid (see `modules/quantise.py`)."""

from typing import Literal

from graphspec.declare import op


@op(
    "x: float[...] @ r -> int(2**bits)[...] @ r where bits >= 1, bits <= 16",
    time="pointwise()",
    example="x |> quantise(8, mu_law)",
)
def quantise(x, *, bits: int = 8, law: Literal["linear", "mu_law"] = "linear"):
    """Amplitudes to the nearest of 2**bits levels; no gradient passes.

    x: float[...], clipped to [-1, 1] -> int(2**bits)[...]. bits: 1 to 16. law: `linear`, or `mu_law` (ITU-T G.711's
    continuous law with mu = 2**bits - 1), which spends the levels where the ear hears them.
    """
    from graphspec.ops.modules.quantise import Quantise

    return Quantise(bits, law)


@op(
    "x: int(n)[...] @ r -> float[...] @ r where n >= 2, 2**round(log2(n)) == n",
    time="pointwise()",
    example="x |> dequantise",
)
def dequantise(x, *, law: Literal["linear", "mu_law"] = "linear"):
    """Levels to amplitudes, the inverse of `quantise`.

    x: int(n)[...], n a power of two -> float[...] in [-1, 1]. law: the one the levels were made with.
    """
    from graphspec.ops.modules.quantise import Dequantise

    return Dequantise(x.dtype.classes.bit_length() - 1, law)
