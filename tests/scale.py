"""Specs of any size, valid by construction: chains, joins, history, convolutions, one expression a value."""

HEAD = "graphspec: 1\nmodel: big\ninputs:\n  wave: float[T, 4] @ 16000\nrequire:\n  - T % 16 == 0\ngraph:\n"


def spec(values: int) -> str:
    """About so many values (a line is 1.14 of them on average)."""
    lines = ["  v0: wave[t-1] |> conv(8)"]
    count = 2
    i = 1
    while count < values:
        last = f"v{i - 1}"
        text, made = (
            (f"{last} |> tanh", 1),
            (f"{last} + v{max(0, i - 5)}", 1),
            (f"{last} |> linear(8)", 1),
            (f"{last} * 0.5", 1),
            (f"{last}[t-1]", 1),
            (f"cat({last}, v{max(0, i - 3)}) |> take(0, 8)", 2),
            (f"{last} |> conv(8, k=3)", 1),
        )[i % 7]
        lines.append(f"  v{i}: {text}")
        count, i = count + made, i + 1
    body = "\n".join(lines)
    return f"{HEAD}{body}\ncausal:\n  v{i - 1}: strict\noutputs: [v{i - 1}]\n"
