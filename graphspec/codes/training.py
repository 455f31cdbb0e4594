"""Codes of training and data: GS06xx. Checkpoint codes have no spec text to show: no spec can cause them."""

from graphspec.codes import Code

CODES: tuple[Code, ...] = (
    Code(
        number="GS0620",
        title="a checkpoint is damaged",
        why="Its files are not, byte for byte, what its manifest.json says was written: a file is missing, cut short, "
        "changed, or the manifest itself cannot be read. Weights with a flipped bit load and train without a word, so "
        "a checkpoint is only used when every SHA-256 agrees. When a run resumes, the newest checkpoint before it that "
        "verifies is used instead, and this is a warning.",
        failing="",
        passing="",
        fix="Resume from the checkpoint before it. If more than one is damaged, check the disk; a copy made while the "
        "run was writing is not one to trust.",
    ),
    Code(
        number="GS0621",
        title="a checkpoint is of another model",
        why="A tensor of the model is not in the checkpoint, or is there with another shape or dtype, or the "
        "checkpoint holds one the model has not. Nothing is copied until all of them agree.",
        failing="",
        passing="",
        fix="Resume with the spec the run was started with (it is kept in the run's folder), or start a new run.",
    ),
    Code(
        number="GS0622",
        title="a file of the run cannot be written",
        why="The disk is full, a quota is reached, the folder may not be written, or the device failed. Files are "
        "written beside their final place and renamed when they are whole, so what was written before is intact.",
        failing="",
        passing="",
        fix="Free some space, allow writing, or name another folder, then resume: the newest checkpoint is used.",
    ),
)
