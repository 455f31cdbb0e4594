"""State space layers: linear systems run as convolutions in training and as recurrences in sampling."""

from typing import Literal

from graphspec.declare import op


@op(
    "x: float[T, c] @ r -> float[T, c] @ r where state >= 2, state % 2 == 0, dt_min > 0, dt_min <= dt_max",
    time="recurrent()",
    weights={"log_dt": "ssm", "log_a_re": "ssm", "a_im": "ssm", "b": "ssm", "c": "", "d": ""},
    precision="f32",
    example="x |> s4d(64)",
)
def s4d(
    x,
    *,
    state: int = 64,
    init: Literal["lin", "inv", "real"] = "lin",
    disc: Literal["zoh", "bilinear"] = "zoh",
    dt_min: float = 1e-3,
    dt_max: float = 1e-1,
):
    """Diagonal state space layer S4D, one system per channel, D x included (Gu et al. 2022).

    x: float[T, c] -> the same; channels do not mix. state: real size of a system (N; N/2 complex modes).
    init: of the poles, `lin` (Im A = pi n), `inv` or `real`. disc: discretisation, zero-order hold or `bilinear`.
    dt_min, dt_max: the initial step is log-uniform between them, in ticks of x.
    Weights `log_dt` [c], `log_a_re` and `a_im` [c, N/2], `b` and `c` [c, N/2, 2], `d` [c].
    """
    from graphspec.ops.modules.ssm import S4D

    return S4D(x.channels, state, init, disc, dt_min, dt_max)


@op(
    "x: float[T, c] @ r -> float[T, c] @ r"
    " where state >= 2, state % 2 == 0, copies >= 0, c % max(copies, 1) == 0, dt_min > 0, dt_min <= dt_max",
    time="everything() if both else recurrent()",
    weights={"log_dt": "ssm", "log_a_re": "ssm", "a_im": "ssm", "p": "ssm", "b": "ssm", "c": "", "d": ""},
    precision="f32",
    example="x |> s4(8)",
)
def s4(
    x,
    *,
    state: int = 64,
    copies: int = 1,
    dt_min: float = 1e-3,
    dt_max: float = 1e-1,
    softplus: bool = False,
    both: bool = False,
):
    """Structured state space layer S4: diagonal plus low rank, HiPPO-LegS, D x included (Gu, Goel & Re 2022).

    x: float[T, c] -> the same; channels do not mix. Discretised bilinearly. The low rank term is tied, so that
    A = Lambda - P P* is stable (Goel et al. 2022).
    state: real size of a system (N; N/2 complex modes). copies: different A, P, B; channel i has number i % copies;
    0 is one for every channel.
    dt_min, dt_max: the initial step is log-uniform between them, in ticks of x. softplus: the step is softplus of its
    weight, else exp. both: a second C reads the future, from the next tick on; then it does not stream.
    Weights `log_dt` [c], `log_a_re` and `a_im` [copies, N/2], `p` and `b` [copies, N/2, 2], `c` [c, N/2, 2] (both:
    [2, c, N/2, 2]), `d` [c]. `c` means the same at any length.
    """
    from graphspec.ops.modules.dplr import S4

    return S4(x.channels, state, copies, dt_min, dt_max, softplus, both)
