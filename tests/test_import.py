"""Checkpoints of the s4 repository: its golden gives the golden's numbers, and a modular one its own model back."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from graphspec.__main__ import main
from graphspec.cli.load import check_spec, compile_spec
from graphspec.cli.trained import open_model
from graphspec.compiler.lower import Model, lower
from graphspec.diagnostic import SpecError
from graphspec.runtime.audio import read
from graphspec.runtime.import_checkpoint import check, imported, read_state
from graphspec.runtime.s4_checkpoint import System, true_c

GOLDENS = Path(__file__).parent / "goldens"
TINY = ("d=8", "depth=2", "bits=4", "state=64")
SMALL = ("d=8", "depth=1", "bits=4", "state=8")

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDENS / "sashimi_tiny_s4d.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


@pytest.fixture
def standalone(golden: dict[str, np.ndarray]) -> State:
    named = {key[6:].replace("/", "."): x for key, x in golden.items() if key.startswith("param/")}
    return {name: torch.from_numpy(x.copy()) for name, x in named.items()}


def refused(model: Model, state: State, code: str = "GS0648") -> tuple[str, tuple[str, ...]]:
    with pytest.raises(SpecError) as error:
        imported(model, state)
    (found,) = error.value.diagnostics
    assert found.code == code
    return found.message, found.notes


def loaded(model: Model, state: State, step: str = "") -> Model:
    model.double().load_state_dict(imported(model, state, step).tensors)
    return model


# ---- the standalone model --------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_golden_gives_its_own_logits(golden: dict[str, np.ndarray], standalone: State) -> None:
    model = loaded(compile_spec("sashimi", TINY), standalone)
    found = model({"wave": torch.from_numpy(golden["tokens"])[..., None]})
    np.testing.assert_allclose(found["dist"][:, :, 0], golden["logits"], atol=1e-9)
    np.testing.assert_allclose(found["losses.nll"].mean(), golden["loss_nats"], atol=1e-9)


@pytest.mark.parametrize(
    "names", [("weight_g", "weight_v"), tuple(f"parametrizations.weight.original{i}" for i in "01")]
)
def test_normed_pools_become_plain_ones(standalone: State, names: tuple[str, str]) -> None:
    model = compile_spec("sashimi", TINY)
    want = imported(model, standalone).tensors
    pools = [name for name in standalone if name.endswith("linear.weight")]
    assert len(pools) == 4
    for name in pools:
        w = standalone.pop(name)
        stem = name.removesuffix("weight")
        standalone[stem + names[0]] = torch.linalg.vector_norm(w, dim=(1, 2), keepdim=True)
        standalone[stem + names[1]] = 3 * w
    got = imported(model, standalone).tensors
    for name, x in want.items():
        torch.testing.assert_close(got[name], x, rtol=1e-12, atol=1e-12)


def test_systems_that_channels_share_are_repeated(standalone: State) -> None:
    for name, x in standalone.items():
        if name.endswith(("A_real", "A_imag")):
            standalone[name] = x[:1]
        if name.endswith("kernel.B"):
            standalone[name] = x[:, :1]
    got = imported(compile_spec("sashimi", TINY), standalone).tensors
    b = got["y0.residual.0.ssm_ff.ssm_res.residual.s4d.b"]
    assert b.shape == (8, 32, 2) and torch.equal(b, b[:1].expand(8, -1, -1))


def test_all_that_does_not_fit_is_told_at_once(standalone: State) -> None:
    model = compile_spec("sashimi", TINY)
    before = {name: w.clone() for name, w in model.state_dict().items()}
    del standalone["net.c_layers.0.layer.layer.kernel.A_real"], standalone["net.c_layers.1.layer.ff.2.bias"]
    standalone["dec.weight"] = standalone["dec.weight"][:8]
    standalone["net.u_layers.0.1.extra"] = torch.zeros(3)
    message, notes = refused(model, standalone)
    assert message.endswith("2 not in the file, 1 of another shape, 1 not in the spec")
    assert set(notes) == {
        "not in the file: net.c_layers.0.layer.layer.kernel.A_real",
        "not in the file: net.c_layers.1.layer.ff.2.bias",
        "of another shape: dec.weight is [8, 8], dist.categorical.weight [16, 8]",
        "not in the spec: net.u_layers.0.1.extra",
    }
    assert all(torch.equal(w, before[name]) for name, w in model.state_dict().items())


def test_other_blocks_are_told_before_any_name(standalone: State) -> None:
    message, notes = refused(compile_spec("sashimi", ("d=8", "depth=3", "bits=4")), standalone)
    assert "other blocks" in message and notes[0] == (
        "in the file: pool, pool, 2 x (ssm, ff), pool, 2 x (ssm, ff), pool, 2 x (ssm, ff)"
    )
    assert "no SaShiMi" in refused(compile_spec("wavenet_small", ("layers=2", "width=4")), standalone)[0]
    assert "other blocks" in refused(compile_spec("sashimi", TINY), {"some.weight": torch.zeros(2, 2)})[0]


def test_a_norm_of_another_kind_is_refused(standalone: State) -> None:
    _, notes = refused(compile_spec("sashimi_modular", TINY), standalone)
    assert "not in the file: net.c_layers.0.norm.m" in notes and "not in the spec: net.c_layers.0.norm.weight" in notes


# ---- the true C ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ticks", [64, 128])
def test_the_true_c_is_the_goldens(ticks: int) -> None:
    with np.load(GOLDENS / "s4_dplr.npz") as arrays:
        g = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    system = System(g["dt"], g["Lambda"][None], g["B"][None], g["P"][None], g[f"C_tilde_{ticks}"].reshape(4, 4))
    torch.testing.assert_close(true_c(system, ticks).c, g["C_true"].reshape(4, 4), rtol=1e-10, atol=1e-10)


# ---- the modular model -----------------------------------------------------------------------------------------------


def published(model: Model, ticks: int, version: int = 4) -> State:
    """The model's weights as the repository keeps those of its modular SaShiMi: the map of the import, backwards.

    ticks: l_kernel of the fastest systems, a quarter of it at each pool; 0 keeps the true C.
    """
    ours = {name: w.detach().double() for name, w in model.weights().items()}
    state: State = {"encoder.0.weight": ours["x0.embed.weight"][0]}
    for leaf in ("weight", "bias"):
        state[f"decoder.0.output_transform.{leaf}"] = ours[f"dist.categorical.{leaf}"]
        state[f"model.norm.{leaf}"] = ours[f"dist.layer_norm.{leaf}"]

    def pool(place: str, path: str) -> None:
        state[f"model.{place}.linear.weight_g"] = ours[f"{path}.linear.g"][:, None, None]
        state[f"model.{place}.linear.weight_v"] = ours[f"{path}.linear.v"][:, :, None]
        state[f"model.{place}.linear.bias"] = ours[f"{path}.linear.bias"]

    def norm(place: str, path: str) -> None:
        for leaf in ("m", "s"):
            state[f"{place}.norm.norm.{leaf}"] = ours[f"{path}.channel_norm.{leaf}"]

    def stage(place: str, path: str, length: int, first: int = 0) -> None:
        ssm, body = f"model.{place}.{first}", f"{path}.residual.0.ssm_ff.ssm_res.residual"
        norm(ssm, body)
        w = {leaf: ours[f"{body}.s4.{leaf}"] for leaf in ("log_dt", "log_a_re", "a_im", "p", "b", "c", "d")}
        kernel = f"{ssm}.layer.layer.kernel" if version == 4 else f"{ssm}.layer.kernel.kernel"
        dt = torch.nn.functional.softplus(w["log_dt"])
        if version == 4:
            state[f"{kernel}.inv_dt"] = w["log_dt"][:, None]
            state[f"{kernel}.A_imag"] = w["a_im"]
        else:
            state[f"{kernel}.log_dt"] = dt.log()
            state[f"{kernel}.w_imag"] = -w["a_im"]
        state[f"{kernel}.A_real" if version == 4 else f"{kernel}.inv_w_real"] = w["log_a_re"]
        state[f"{kernel}.B"], state[f"{kernel}.P"] = w["b"][None], w["p"][None]
        state[f"{kernel}.C"] = kept_c(w, dt, length)[None] if ticks else w["c"][None]
        state[f"{kernel}.l_kernel" if version == 4 else f"{kernel}.L"] = torch.tensor(length if ticks else 0)
        state[f"{ssm}.layer.layer.D" if version == 4 else f"{ssm}.layer.D"] = w["d"][None]
        ff, dense = f"model.{place}.{first + 1}", f"{path}.residual.0.ssm_ff.ff_res.residual"
        norm(ff, dense)
        for leaf in ("weight", "bias"):
            state[f"{ssm}.layer.output_linear.0.{leaf}"] = ours[f"{body}.linear.{leaf}"]
            state[f"{ff}.layer.ff.0.0.{leaf}"] = ours[f"{dense}.linear.{leaf}"]
            state[f"{ff}.layer.ff.2.{leaf}"] = ours[f"{dense}.linear_2.{leaf}"]

    pool("d_layers.0", "x1.down_pool")
    pool("d_layers.1", "x2.down_pool")
    stage("c_layers", "m", ticks // 16)
    for i, path in enumerate(("y1", "y0")):
        pool(f"u_layers.{i}.0", f"{path}.up_pool")
        stage(f"u_layers.{i}", path, ticks // 4 if path == "y1" else ticks, first=1)
    return state


def kept_c(w: State, dt: Tensor, length: int) -> Tensor:
    """C (I - Abar^l), channel by channel, the recurrence run l times."""
    lam = torch.complex(-w["log_a_re"][0].exp(), -w["a_im"][0])
    lam = torch.cat([lam, lam.conj()])
    p = torch.view_as_complex(w["p"][0].contiguous())
    p = torch.cat([p, p.conj()])
    a = torch.diag(lam) - torch.outer(p, p.conj())
    one = torch.eye(len(lam), dtype=a.dtype)
    out = []
    for c, step in zip(torch.view_as_complex(w["c"].contiguous()), dt, strict=True):
        abar = torch.linalg.inv(one - step / 2 * a) @ (one + step / 2 * a)
        row = torch.cat([c, c.conj()])
        far = row
        for _ in range(length):
            far = far @ abar
        out.append((row - far)[: len(c)])
    return torch.view_as_real(torch.stack(out))


@pytest.fixture(scope="module")
def modular() -> Model:
    """With norms that are not the identity, and lengths that are not those of the directions."""
    model = lower(check_spec("sashimi_modular", SMALL), seed=3).double()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, w in model.weights().items():
            if name.endswith((".m", ".s", ".g", ".bias", "layer_norm.weight")):
                w.add_(torch.randn(w.shape, generator=generator, dtype=w.dtype) * 0.1)
    return model


@pytest.mark.parametrize("version", [4, 3])
@pytest.mark.parametrize("ticks", [0, 256])
@torch.no_grad()
def test_a_modular_checkpoint_gives_its_model_back(modular: Model, ticks: int, version: int) -> None:
    state = published(modular, ticks, version)
    if ticks:
        kept = state[
            "model.u_layers.1.1.layer.layer.kernel.C" if version == 4 else "model.u_layers.1.1.layer.kernel.kernel.C"
        ]
        assert (kept[0] - modular.weights()["y0.residual.0.ssm_ff.ssm_res.residual.s4.c"]).abs().max() > 1e-3
    other = loaded(lower(check_spec("sashimi_modular", SMALL), seed=9), state)
    for name, w in modular.weights().items():
        torch.testing.assert_close(other.weights()[name], w, rtol=1e-9, atol=1e-9, msg=name)
    wave = torch.randint(16, (2, 64, 1), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(other({"wave": wave})["dist"], modular({"wave": wave})["dist"], rtol=1e-8, atol=1e-8)
    assert "largest error" in check(other)


UNET = {  # ours -> the repository's, where layers and pools of all levels stand in one row
    r"down\.(\d)\.down_level\.r\.(\d)\.pushing": lambda m: f"d_layers.{3 * int(m[1]) + int(m[2])}",
    r"mid\.residual\.0\.ssm_ff\.(ssm|ff)_res": lambda m: f"c_layers.{int(m[1] == 'ff')}.{m[1]}_res",
    r"y\.(\d)\.up_level\.(\d)\.popping": lambda m: f"u_layers.{3 * int(m[1]) + int(m[2])}",
    r"(?:down|up)_pool\.": lambda m: "",
    r"\w+_res\.residual\.channel_norm": lambda m: "norm.norm",
    r"ssm_res\.residual\.linear": lambda m: "layer.output_linear.0",
    r"ssm_res\.residual\.s4\.d": lambda m: "layer.layer.D",
    r"ssm_res\.residual\.s4": lambda m: "layer.layer.kernel",
    r"ff_res\.residual\.linear_2": lambda m: "layer.ff.2",
    r"ff_res\.residual\.linear": lambda m: "layer.ff.0.0",
    r"dist\.layer_norm": lambda m: "norm",
    r"log_dt": lambda m: "inv_dt",
    r"log_a_re": lambda m: "A_real",
    r"a_im": lambda m: "A_imag",
    r"kernel\.([bcp])$": lambda m: f"kernel.{m[1].upper()}",
}


@torch.no_grad()
def test_a_unet_in_one_row_gives_its_model_back() -> None:
    model, other = (lower(check_spec("sashimi_unet_modular", SMALL), seed=i).double() for i in (5, 6))
    state: State = {}
    for name, w in model.weights().items():
        theirs = name
        for pattern, new in UNET.items():
            theirs = re.sub(pattern, new, theirs)
        state[f"model.{theirs}"] = w.detach()
    state["encoder.0.weight"] = state.pop("model.x0.embed.weight")[0]
    for leaf in ("weight", "bias"):
        state[f"decoder.0.output_transform.{leaf}"] = state.pop(f"model.dist.categorical.{leaf}")
    loaded(other, state)
    for name, w in model.weights().items():
        torch.testing.assert_close(other.weights()[name], w, rtol=1e-9, atol=1e-9, msg=name)


def test_the_step_may_be_said(modular: Model) -> None:
    state = published(modular, 0)
    place = "y0.residual.0.ssm_ff.ssm_res.residual.s4.log_dt"
    soft, plain = (imported(modular, state, step).tensors[place] for step in ("", "exp"))
    torch.testing.assert_close(soft, modular.weights()[place].detach())
    torch.testing.assert_close(torch.nn.functional.softplus(plain), state_dt(state).exp())


def state_dt(state: State) -> Tensor:
    return state["model.u_layers.1.1.layer.layer.kernel.inv_dt"][:, 0]


# ---- files and the command -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".pt", ".safetensors", ".ckpt"])
def test_the_command_makes_a_run_that_is_scored_sampled_and_trained_on(
    modular: Model, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {name: x.contiguous() for name, x in published(modular, 256).items()}
    file, run = tmp_path / f"small{ending}", str(tmp_path / "run")
    if ending == ".safetensors":
        save_file(state, file)
    else:
        torch.save({"state_dict": state, "epoch": 3} if ending == ".ckpt" else state, file)
    given = [*SMALL, "train.crop.T=64"]
    assert main(["import-checkpoint", "sashimi_modular", str(file), *given, "--out", run]) == 0
    said = capsys.readouterr()
    assert "y0.up_pool.linear.g  [32]  mean " in said.out and "whole == step" in said.err
    assert json.loads((tmp_path / "run/imported.json").read_text())["file"] == str(file)
    _, model, _ = open_model(run, "cpu", pytest.fail)
    for name, w in modular.weights().items():
        torch.testing.assert_close(model.weights()[name].double(), w, rtol=1e-5, atol=1e-5, msg=name)
    if ending != ".pt":
        return
    assert main(["eval", run]) == 0
    assert main(["sample", run, "--seconds", "0.02", "--backend", "eager"]) == 0
    assert len(read(tmp_path / "run/samples/seed0.wav", 16000, 1)) == 320
    assert main(["import-checkpoint", "sashimi_modular", str(file), *SMALL, "--out", run]) == 1
    assert "GS0623" in capsys.readouterr().err
    assert main(["train", "sashimi_modular", "--run", run, "--resume", *given, "train.steps=2"]) == 0
    assert (tmp_path / "run/metrics.csv").read_text().splitlines()[-1].startswith("2,")


class Stranger:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/graphspec-was-here",)


def test_files_that_are_no_state_dict_are_refused(tmp_path: Path) -> None:
    for name, content in (("a.pt", b""), ("b.safetensors", b"\xff" * 64), ("c.pt", b"not a checkpoint")):
        (tmp_path / name).write_bytes(content)
    torch.save({"x": Stranger()}, tmp_path / "d.pt")
    torch.save([1, 2], tmp_path / "e.pt")
    torch.save({"epoch": 1}, tmp_path / "f.pt")
    for name in ("a.pt", "b.safetensors", "c.pt", "d.pt", "e.pt", "f.pt", "missing.pt"):
        with pytest.raises(SpecError) as error:
            read_state(tmp_path / name)
        assert error.value.diagnostics[0].code == "GS0647", name
    assert not Path("/tmp/graphspec-was-here").exists()


def test_weights_that_are_not_finite_are_refused(
    standalone: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    standalone["dec.bias"][3] = float("nan")
    torch.save(standalone, tmp_path / "bad.pt")
    run = tmp_path / "run"
    assert main(["import-checkpoint", "sashimi", str(tmp_path / "bad.pt"), *TINY, "--out", str(run)]) == 1
    assert "error[GS0649]" in capsys.readouterr().err and not run.exists()
