"""GS0680 to GS0683: features of audio, computed by another package, once with the recordings, or given."""

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
    Code(
        "GS0682",
        "a feature never changes in a recording",
        "A feature that is computed once with the recordings has one value from the first frame to the last: pitch "
        "of a recording in which no frame is voiced (0), loudness of a silent one. A model learns little from such a "
        "recording; where all are like this, the range of the tracker, or the folder, is not what was meant.",
        failing="",
        passing=_TRACKED,
        fix="Leave these recordings out, or give the tracker the range of the instrument (fmin, fmax).",
    ),
    Code(
        "GS0683",
        "what is given is not of one length",
        "The values given to an entry that draws nothing begin together; where one lasts longer than another by more "
        "than a frame, what is beyond the shortest is left out. The usual cause is a control computed with another hop "
        "than the spec's: one frame stands for so many samples, which the message counts.",
        failing="",
        passing=_TRACKED,
        fix="Compute all controls with the hop of the spec, or cut them to one length.",
    ),
)
