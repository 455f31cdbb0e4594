"""Convolutions against torch.nn.functional and naive loops over taps."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphspec.ops.modules.conv import CausalConv, ConvUp
from graphspec.ops.modules.conv2d import Conv2d, Conv2dUp

torch.set_num_threads(1)


def drawn(module: nn.Module) -> nn.Module:
    module.reset(lambda name: torch.Generator().manual_seed(len(name)))
    return module.double()


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("dilation", [1, 3])
def test_conv_reads_the_taps_that_end_with_its_group(k: int, stride: int, dilation: int) -> None:
    conv, x = drawn(CausalConv(3, 4, k, dilation, stride=stride)), numbers(2, 24, 3)
    y = conv(x)
    assert y.shape == (2, 24 // stride, 4)
    for j in range(24 // stride):
        want = conv.bias.expand(2, -1)
        for i in range(k):
            t = j * stride + stride - 1 - (k - 1 - i) * dilation
            want = want + (x[:, t] @ conv.weight[:, :, i].T if t >= 0 else 0)
        close(y[:, j], want)


@pytest.mark.parametrize("groups", [1, 3, 6])
def test_groups_are_torchs(groups: int) -> None:
    conv, x = drawn(CausalConv(6, 12, 3, groups=groups)), numbers(2, 20, 6)
    want = F.conv1d(F.pad(x.transpose(1, 2), (2, 0)), conv.weight, conv.bias, groups=groups).transpose(1, 2)
    close(conv(x), want)


@pytest.mark.parametrize(("k", "dilation"), [(1, 1), (3, 1), (5, 2), (9, 3)])
def test_centred_is_torchs_same_padding(k: int, dilation: int) -> None:
    conv, x = drawn(CausalConv(3, 4, k, dilation, centre=True)), numbers(2, 20, 3)
    assert conv.ahead == (k - 1) // 2 * dilation
    want = F.conv1d(x.transpose(1, 2), conv.weight, conv.bias, padding="same", dilation=dilation).transpose(1, 2)
    close(conv(x), want)


@pytest.mark.parametrize("stride", [2, 4, 6])
def test_centred_and_strided_pads_equally(stride: int) -> None:
    """k = 2*stride: half of the stride on either side, as a codec that is not causal."""
    conv, x = drawn(CausalConv(3, 4, 2 * stride, stride=stride, centre=True)), numbers(2, 24, 3)
    want = F.conv1d(x.transpose(1, 2), conv.weight, conv.bias, stride, stride // 2).transpose(1, 2)
    close(conv(x), want)


def test_what_looks_ahead_refuses_to_step() -> None:
    x = numbers(1, 1, 3)
    for module in (CausalConv(3, 4, 3, centre=True), Conv2d(3, 4, 5), Conv2dUp(3, 4, 5)):
        with pytest.raises(NotImplementedError, match="ahead"):
            module.step(x, {}, {})


@pytest.mark.parametrize(("k", "stride"), [(1, 1), (4, 2), (10, 5), (7, 3), (5, 1)])
def test_conv_up_is_torchs_without_the_tail(k: int, stride: int) -> None:
    up, x = drawn(ConvUp(3, 4, k, stride)), numbers(2, 12, 3)
    want = F.conv_transpose1d(x.transpose(1, 2), up.weight, up.bias, stride).transpose(1, 2)[:, : 12 * stride]
    close(up(x), want)


def test_conv_up_is_the_adjoint_of_conv_looking_the_other_way() -> None:
    """<conv(x), y> = <x, conv_up(y)>, time turned round: a decoder undoes what an encoder of the same shape did."""
    k, stride = 8, 4
    down, up = drawn(CausalConv(3, 5, k, stride=stride, bias=False)), drawn(ConvUp(5, 3, k, stride, bias=False))
    up.weight.data.copy_(down.weight.data.flip(2))
    x, y = numbers(2, 24, 3), numbers(2, 6, 5)
    close((down(x) * y).sum(), (x * up(y.flip(1)).flip(1)).sum())


@pytest.mark.parametrize(("k", "stride", "padding"), [(3, 1, 1), (5, 1, 2), (3, 2, 1), (4, 2, 1), (5, 2, 2), (4, 4, 0)])
def test_conv2d_is_torchs(k: int, stride: int, padding: int) -> None:
    conv, x = drawn(Conv2d(3, 4, 8, k, stride)), numbers(2, 12, 8, 3)
    want = F.conv2d(x.permute(0, 3, 1, 2), conv.weight, conv.bias, stride, padding).permute(0, 2, 3, 1)
    close(conv(x), want[:, : 12 // stride, : 8 // stride])
    assert conv(x).shape == (2, 12 // stride, 8 // stride, 4)


@pytest.mark.parametrize(("k", "stride"), [(3, 1), (4, 2), (5, 3)])
def test_causal_conv2d_pads_before(k: int, stride: int) -> None:
    conv, x = drawn(Conv2d(3, 4, 6, k, stride, causal=True)), numbers(2, 12, 6, 3)
    e = k - stride
    padded = F.pad(x.permute(0, 3, 1, 2), (e - e // 2, e // 2, e, 0))
    close(conv(x), F.conv2d(padded, conv.weight, conv.bias, stride).permute(0, 2, 3, 1))


@pytest.mark.parametrize(("k", "stride", "padding", "more"), [(4, 2, 1, 0), (3, 2, 1, 1), (3, 1, 1, 0), (6, 4, 1, 0)])
def test_conv2d_up_is_torchs(k: int, stride: int, padding: int, more: int) -> None:
    up, x = drawn(Conv2dUp(3, 4, 6, k, stride)), numbers(2, 8, 6, 3)
    want = F.conv_transpose2d(x.permute(0, 3, 1, 2), up.weight, up.bias, stride, padding, more).permute(0, 2, 3, 1)
    close(up(x), want)


def test_causal_conv2d_up_drops_the_end() -> None:
    up, x = drawn(Conv2dUp(3, 4, 6, 4, 2, causal=True)), numbers(2, 8, 6, 3)
    want = F.conv_transpose2d(x.permute(0, 3, 1, 2), up.weight, up.bias, 2)[:, :, :16, 1:13].permute(0, 2, 3, 1)
    close(up(x), want)


@pytest.mark.parametrize(
    ("module", "twin"),
    [
        (lambda: CausalConv(6, 32, 5, groups=2), lambda: nn.Conv1d(6, 32, 5, groups=2)),
        (lambda: ConvUp(6, 32, 5, 2), lambda: nn.ConvTranspose1d(6, 32, 5, 2)),
        (lambda: Conv2d(6, 32, 8, 3), lambda: nn.Conv2d(6, 32, 3)),
        (lambda: Conv2dUp(6, 32, 8, 4), lambda: nn.ConvTranspose2d(6, 32, 4, 2)),
    ],
)
def test_first_weights_are_as_torchs(module: object, twin: object) -> None:
    a, b = drawn(module()), twin()
    for name, w in b.named_parameters():
        mine = a.get_parameter(name)
        assert mine.shape == w.shape
        assert 0.8 < float((mine.abs().max() / w.abs().max()).detach()) < 1.25, name


@pytest.mark.parametrize("what", ["units", "channels"])
def test_groups_that_do_not_divide_are_refused(what: str) -> None:
    with pytest.raises(ValueError, match="groups"):
        CausalConv(6 if what == "units" else 5, 8 if what == "channels" else 5, groups=2)
