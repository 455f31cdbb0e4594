"""Distances between the short-time spectra of two sounds, at several resolutions: losses of whole clips."""

from typing import Literal

from graphspec.declare import op


@op(
    "estimate: float[T, c] @ r, target: float[T, c] @ r -> float[] where len(sizes) >= 1, min(sizes) >= 4,"
    " len(windows) == 0 or len(windows) == len(sizes), len(hops) == 0 or len(hops) == len(sizes),"
    " eps > 0, floor >= 0",
    time="everything()",
    precision="f32",
    example="multiscale_stft(estimate, target, sizes=[8, 4], log_weight=1)",
)
def multiscale_stft(
    estimate,
    target,
    *,
    sizes: list = (2048, 1024, 512, 256, 128, 64),
    mag_weight: float = 1.0,
    log_weight: float = 0.0,
    log_eps: Literal["add", "clamp", "where"] = "add",
    eps: float = 1e-5,
    distance: Literal["l1", "l2"] = "l1",
    delta_time_weight: float = 0.0,
    delta_freq_weight: float = 0.0,
    cumsum_freq_weight: float = 0.0,
    convergence_weight: float = 0.0,
    windows: list = (),
    hops: list = (),
    framing: Literal["ahead", "reflect"] = "ahead",
    normalized: bool = False,
    floor: float = 0.0,
    over_sizes: Literal["sum", "mean"] = "sum",
):
    """The multi-scale spectral loss: distances between STFT magnitudes of several sizes (Engel et al. 2020).

    estimate, target: float[T, c] @ r -> float[], one number a clip; each term is a mean over frames and bins. What both
    loudly share they must share at every size, so no phase is asked for. It reads whole clips.
    sizes: samples of an FFT. mag_weight: of |difference| of the magnitudes. log_weight: of that of their natural
    logarithms. log_eps: what keeps the logarithm finite: `add` log(m + eps), DDSP's first and the paper's; `clamp`
    log(max(m, eps)), of 0.14 to 1.9; `where` eps in place of 0 alone, of 3.x, whose gradient grows as 1/m in silence.
    eps: of the logarithm. distance: `l1`, or `l2` the square. delta_time_weight, delta_freq_weight: of the differences
    from frame to frame, from bin to bin. cumsum_freq_weight: of the sums up to each bin. convergence_weight: of
    |difference| / |target| as wholes (Arik et al. 2018), which is not symmetric.
    windows: samples of the periodic Hann windows, none for sizes. hops: samples from frame to frame, none for a quarter
    of the windows. framing: `ahead`, frame k from sample k*hop on, zeros behind the end; `reflect`, around it, the clip
    mirrored at its ends, which wants more than half a size of it. normalized: magnitudes by the square root of size.
    floor: the least a magnitude counts. over_sizes: the `sum` of the sizes, or their `mean`.

    auraloss's MultiResolutionSTFTLoss: framing=reflect, floor=1e-4, over_sizes=mean, mag_weight=w_lin_mag,
    log_weight=w_log_mag, log_eps=where, convergence_weight=w_sc (there over the whole batch), and its three lists.
    """
    from graphspec.ops.modules.spectral_losses import MultiscaleSTFT

    return MultiscaleSTFT(
        sizes, windows, hops, framing=framing, normalized=normalized, floor=floor, over_sizes=over_sizes,
        log_eps=log_eps, eps=eps, distance=distance,
        weights={
            "magnitude": mag_weight, "logarithm": log_weight, "delta_time": delta_time_weight,
            "delta_frequency": delta_freq_weight, "sum_frequency": cumsum_freq_weight,
            "convergence": convergence_weight,
        },
    )  # fmt: skip
