"""GS0657: what `graphspec data prepare` would write lies where something else is."""

from graphspec.codes import Code

CODES = (
    Code(
        "GS0657",
        "a prepared file would overwrite another",
        "Preparing never overwrites. A file of the wanted rate, channels and length is taken as done; any other file "
        "in its place, as from a call with another --rate, is left as it is and told. The folder that is read cannot "
        "be the one that is written.",
        failing="",
        passing="graphspec: 1\nmodel: small\ninputs:\n  x: float[T, 4] @ 8000\n"
        "graph:\n  y: x |> linear(2)\noutputs: [y]\n",
        fix="Name an empty folder, or remove the file that is in the way.",
    ),
)
