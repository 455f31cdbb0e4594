"""GS09xx: faults of graphspec itself, or of a kernel below it."""

from graphspec.codes import Code

CODES = (
    Code(
        "GS0900",
        "graphspec failed",
        "Something went wrong that no message was written for. Whatever the spec says, that is our fault: a mistake in "
        "a spec has a code of its own. The exit code is 70, and GRAPHSPEC_TRACEBACK=1 shows where it happened.",
        failing="",
        passing="",
        fix="Report it with the spec and the trace.",
    ),
    Code(
        "GS0901",
        "a value failed while it ran",
        "PyTorch refused a computation that had been checked: out of memory, a kernel that this device lacks, or a "
        "type rule of ours that is wrong. The message names the value and its line in the spec, the notes its operands "
        "with their types.",
        failing="",
        passing="",
        fix="If it is memory, lower train.batch or train.crop; else report it.",
    ),
)
