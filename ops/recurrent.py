"""Gated recurrent layers: a state of their own, one nonlinear update a tick."""

from typing import Literal

from graphspec.declare import op


@op(
    "x: float[T, c] @ r -> float[T, units] @ r where units >= 1, layers >= 1",
    time="recurrent()",
    weights={"weight_ih": "", "weight_deep": "", "weight_hh": "", "bias_ih": "bias", "bias_hh": "bias", "h0": ""},
    precision="f32",
    example="x |> gru(64)",
)
def gru(x, *, units: int, layers: int = 1, init_state: Literal["zeros", "learned"] = "zeros"):
    """Gated recurrent unit, one layer or several on top of each other (Cho et al. 2014; torch's and cuDNN's form).

    x: float[T, c] -> float[T, units], the last layer's state. Per layer r, z = sigmoid(W x + b + V h + d) and
    n = tanh(W x + b + r * (V h + d)), then h' = (1 - z) * n + z * h.
    units: size of a layer. layers: how many. init_state: what h is before the start, `zeros` or `learned`.
    Weights `weight_ih` [3*units, c] of the first layer, `weight_deep` [layers-1, 3*units, units] of the others, of all
    `weight_hh` [layers, 3*units, units], `bias_ih` and `bias_hh` [layers, 3*units], rows in the order r, z, n, uniform
    in +-1/sqrt(units) (torch's default); `h0` [layers, units] if learned, zeros at first.
    """
    from graphspec.ops.modules.recurrent import GRU

    return GRU(x.channels, units, layers, init_state == "learned")


@op(
    "x: float[T, c] @ r -> float[T, units] @ r where units >= 1, layers >= 1",
    time="recurrent()",
    weights={
        "weight_ih": "",
        "weight_deep": "",
        "weight_hh": "",
        "bias_ih": "bias",
        "bias_hh": "bias",
        "h0": "",
        "c0": "",
    },
    precision="f32",
    example="x |> lstm(64)",
)
def lstm(x, *, units: int, layers: int = 1, init_state: Literal["zeros", "learned"] = "zeros"):
    """Long short-term memory, one layer or several (Hochreiter and Schmidhuber 1997; Gers et al. 2000; torch's form).

    x: float[T, c] -> float[T, units], the last layer's h. Per layer i, f, o = sigmoid(W x + b + V h + d) and
    g = tanh(the same), then c' = f * c + i * g and h' = o * tanh(c').
    units: size of a layer. layers: how many. init_state: what h and c are before the start, `zeros` or `learned`.
    Weights `weight_ih` [4*units, c] of the first layer, `weight_deep` [layers-1, 4*units, units] of the others, of all
    `weight_hh` [layers, 4*units, units], `bias_ih` and `bias_hh` [layers, 4*units], rows in the order i, f, g, o,
    uniform in +-1/sqrt(units) (torch's default); `h0` and `c0` [layers, units] if learned, zeros at first.
    """
    from graphspec.ops.modules.recurrent import LSTM

    return LSTM(x.channels, units, layers, init_state == "learned")
