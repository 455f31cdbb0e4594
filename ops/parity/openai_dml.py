"""The logistic of PixelCNN++ as its authors wrote it (openai/pixel-cnn, 2017): a threshold, a density below it.

Kept to train as they did and to be compared with; `graphspec.ops.modules.dml` is the one to use. What differs: where
the difference of the two distribution functions is below 1e-5 the density at the middle of the bin stands for it, times
the bin's width, so that the levels do not add up to 1 and in float32 the difference has lost its digits just above the
threshold; the log-scale is held at -7 whatever the bit depth (that is the head's part); a draw's uniform numbers stay
within 1e-5 of the ends. Edges are told by the level here too: the published test, |x| > 0.999, takes 33 levels at each
end of 16 bits for edges.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_SCALE_MIN = -7.0
MARGIN = 1e-5


def level_log_prob(q: Tensor, means: Tensor, log_scales: Tensor, levels: int) -> Tensor:
    """log P of level q under one logistic, or what stands for it; shapes broadcast."""
    x = (2 * q - (levels - 1)).to(means.dtype) / (levels - 1)
    inverse, half = torch.exp(-log_scales), 1 / (levels - 1)
    above, below, middle = ((x - means + e) * inverse for e in (half, -half, 0.0))
    mass = torch.sigmoid(above) - torch.sigmoid(below)
    # -softplus(x) is logsigmoid(-x), exact also where torch's softplus turns into a line.
    density = middle - log_scales + 2 * F.logsigmoid(-middle) - math.log((levels - 1) / 2)
    inside = torch.where(mass > 1e-5, mass.clamp(min=1e-12).log(), density)
    return torch.where(q == 0, F.logsigmoid(above), torch.where(q == levels - 1, F.logsigmoid(-below), inside))
