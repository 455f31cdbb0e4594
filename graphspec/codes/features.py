"""GS0680, GS0681: features of audio, computed by another package, or once with the recordings."""

from graphspec.codes import Code

_TRACKED = """\
graphspec: 1
model: tracked
inputs:
  audio: f32[T, 1] @ 16000
require:
  - T % 64 == 0
graph:
  f0: pitch(audio, 64)
outputs: [f0]
"""

CODES = (
    Code(
        "GS0680",
        "a tracker's package is not installed",
        "`pitch` and `voicing` have a tracker of their own; `tracker=swift` is the package swift-f0, with a small "
        "network and ONNX Runtime, which is an extra. It is asked for when the first recording is tracked.",
        failing="",
        passing=_TRACKED,
        fix="Run pip install graphspec[f0], or leave tracker away.",
    ),
    Code(
        "GS0681",
        "a feature is not finite",
        "A feature that is computed once with the recordings came out NaN or infinite; the model would be trained on "
        "it. The recording, and the frame, are named.",
        failing="",
        passing="",
        fix="Look at the recording at that time, or leave it out of the folder.",
    ),
)
