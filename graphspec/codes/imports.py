"""GS0647 to GS0649: checkpoints of other programs."""

from graphspec.codes import Code

_SMALL = "graphspec: 1\nmodel: small\ninputs:\n  x: float[T, 4] @ 8000\ngraph:\n  y: x |> linear(2)\noutputs: [y]\n"

CODES = (
    Code(
        "GS0647",
        "the checkpoint cannot be read",
        "Checkpoints come from strangers, so only names and tensors are read: `.safetensors`, or what torch.save wrote "
        "and torch.load reads with weights_only=True. A file with other objects in it could run code, and is refused.",
        failing="",
        passing=_SMALL,
        fix="Save the state dict alone, with torch.save or as .safetensors.",
    ),
    Code(
        "GS0648",
        "the checkpoint does not fit the spec",
        "The blocks of the file and of the spec are matched in their order, and every name and shape is compared "
        "before a weight is set. The notes list what is missing, what has another shape, and what the spec has no "
        "place for.",
        failing="",
        passing=_SMALL,
        fix="Choose the spec of that model, and give the sizes it was trained with as NAME=VALUE.",
    ),
    Code(
        "GS0649",
        "the imported model is not finite",
        "After an import the model runs on random input, whole and in steps. A result was NaN or infinite: the file "
        "holds such weights, or keeps its step otherwise than was assumed.",
        failing="",
        passing=_SMALL,
        fix="Give --step exp or --step softplus, or import another checkpoint of that training.",
    ),
)
