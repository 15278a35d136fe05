"""How every kind of adapter starts: how far from the identity, what it draws, and what learns in the first step."""

import pytest
import torch
from conftest import glyphs, noise
from equations import SCALE, mosa
from timm.layers import DropPath
from torch.nn import functional as F
from waits import Waits

from idat_tune import adapters, export, kinds
from idat_tune.cost import shapes
from idat_tune.engine.frozen import Frozen
from idat_tune.engine.recording import _masked
from idat_tune.engine.resident import Resident
from idat_tune.errors import BadInput
from idat_tune.model import build
from idat_tune.run import run, run_on

SWIN = "random:swin_tiny_patch4_window7_224"


def fresh(kind, **changes):
    return build("glyph_base", 10, glyphs(adapter__kind=kind, adapter__scale=1.0, **changes), seed=0).eval()


# Relative change of the last block's output by a fresh adapter, as measured; 0 where the kind starts at the identity.
STARTS = {
    "sequential": 0.00453,
    "parallel": 0.00321,
    "parallel_shared": 0.00581,
    "linear": 0,
    "full": 0,
    "bitfit": 0,
    "lora": 0,
    "ssf": 0.0879,
    "vpt_deep": 0.129,
    "adaptformer": 0,
    "repadapter": 0,
    "convpass": 0,
    "fact_tt": 0,
    "fact_tk": 0,
    "arc": 0.339,
    "rlrr": 0.45,
    "ln": 0,
    "difffit": 0,
    "ia3": 0,
    "vera": 0,
    "dora": 0,
    "mona": 1.02,
    "mosa": 0,
    "res_adapter": 0.542,
    "adapter_plus": 0.000836,
}


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_a_fresh_adapter_leaves_the_features_as_near_to_the_plain_ones_as_was_measured(kind):
    pixels = torch.as_tensor(noise(16).pixels)
    with torch.no_grad():
        plain, ours = (fresh(of).with_features(pixels, [2])[1][0] for of in ("linear", kind))
    change = ((ours - plain).norm() / plain.norm()).item()
    assert change == pytest.approx(STARTS[kind], rel=1e-2, abs=1e-6)


# Parts of the names of what is multiplied by zero at the start, and so has no gradient until something else has moved.
STILL = {
    "lora": ("_down.",),
    "adaptformer": ("down.",),
    "repadapter": ("down.",),
    "convpass": ("down.", "conv."),
    "arc": ("qkv.adapter.basis",),
    "mosa": ("adapter.norm.", "adapter.down."),
    "dora": ("_down.",),
    "vera": ("qkv.d",),
    "fact_tt": ("outer.u", "inner.s"),
    "fact_tk": ("outer.u", "inner.p", "core.c"),
}


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_in_the_first_step_all_learns_but_what_zeros_hide_and_in_the_second_all(kind):
    model, images = fresh(kind), noise(32)
    pixels, labels = torch.as_tensor(images.pixels), torch.as_tensor(images.labels)
    for step in range(2):
        F.cross_entropy(model(pixels), labels).backward()
        still = {name for name, value in model.trainable().items() if not value.grad.any()}
        hidden = {name for name in model.trainable() if any(part in name for part in STILL.get(kind, ()))}
        assert still == (set() if step else hidden)
        assert all(value.grad is None for value in model.parameters() if not value.requires_grad)
        with torch.no_grad():
            for value in model.trainable().values():
                value -= value.grad
        model.zero_grad()


def spread(values):
    """Largest absolute value and standard deviation."""
    return values.abs().max().item(), values.std().item()


def test_adapter_plus_starts_from_a_normal_cut_at_two_deviations():
    for name, value in fresh("adapter_plus", adapter__hidden_dim=32).trainable().items():
        if name.endswith("gain"):
            assert (value == 1).all()
        elif name.endswith("weight") and "adapter" in name:
            most, deviation = spread(value)
            assert 0.019 < most <= 0.02
            assert deviation == pytest.approx(0.0088, rel=0.05)


def test_adapter_plus_drops_its_adapters_at_one_rate_beside_the_ramp_of_the_blocks():
    model = build("glyph_base", 10, glyphs(adapter__kind="adapter_plus", model__drop_path=0.1), seed=0)
    blocks = adapters.blocks_of(model.backbone)
    assert [block.own_path.drop_prob for block in blocks] == [0.1] * 3
    assert [getattr(block.block.drop_path1, "drop_prob", 0) for block in blocks] == pytest.approx([0, 0.05, 0.1])
    assert len(_masked(model)) == 3 + 2 * 2  # drawn by a recording too
    still = build("glyph_base", 10, glyphs(adapter__kind="adapter_plus"), seed=0)
    assert not any(isinstance(module, DropPath) for module in still.modules())


def test_a_dropped_adapter_plus_leaves_the_block_alone():
    model = build("glyph_base", 10, glyphs(adapter__kind="adapter_plus", model__drop_path=0.5), seed=0)
    block = adapters.blocks_of(model.backbone)[0]
    x_BTD = torch.randn(64, 17, 48, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    with torch.no_grad():
        plain, ours = block.block(x_BTD), block(x_BTD)
        twice = plain + 2 * block.adapter(plain)
    dropped = (ours == plain).flatten(1).all(1)
    assert 16 < dropped.sum() < 48
    torch.testing.assert_close(ours[~dropped], twice[~dropped])


def test_res_adapters_start_from_xavier_and_tiny_biases():
    bound = (6 / (48 + 32)) ** 0.5
    for name, value in fresh("res_adapter", adapter__hidden_dim=32).trainable().items():
        most, deviation = spread(value)
        if name.endswith(("_adapter.down.weight", "_adapter.up.weight")):
            assert 0.98 * bound < most <= bound
        elif "_adapter" in name:
            assert 0.5e-6 < deviation < 1.5e-6


def test_an_attention_and_its_res_adapter_are_dropped_as_one():
    model = build("glyph_base", 10, glyphs(adapter__kind="res_adapter", model__drop_path=0.9), seed=0)
    block = adapters.blocks_of(model.backbone)[2]
    block.block.drop_path2 = torch.nn.Identity()
    with torch.no_grad():
        for adapter in (block.mlp_adapter, block.block.mlp.fc2):
            for value in adapter.parameters():
                value.zero_()
    x_BTD = torch.randn(64, 17, 48, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    with torch.no_grad():
        assert (block(x_BTD) == x_BTD).flatten(1).all(1).sum() > 40


@pytest.mark.parametrize("kind", ["fact_tt", "fact_tk"])
def test_fact_starts_as_published(kind):
    """U and S as torch's linear layers, C and P at Xavier, of the matrix of all P; V at zero."""
    bounds = {"outer.u": 48**-0.5, "inner.s": 16**-0.5, "core.c": 3**0.5 / 16, "inner.p": (6 / (36 + 16)) ** 0.5}
    seen = set()
    for name, value in fresh(kind, adapter__hidden_dim=16).trainable().items():
        part = ".".join(name.rsplit(".", 2)[1:])
        if part == "outer.v":
            assert not value.any()
        elif part in bounds:
            seen.add(part)
            assert 0.8 * bounds[part] < value.abs().max() <= bounds[part], name
    assert seen == {"outer.u", "inner.s"} if kind == "fact_tt" else {"outer.u", "core.c", "inner.p"}


@pytest.mark.parametrize("kind", ["fact_tt", "fact_tk"])
@pytest.mark.parametrize(("name", "stages"), [("random:vit_tiny_patch16_224", 1), (SWIN, 4)])
def test_all_blocks_of_a_stage_share_the_outer_factors_of_fact(kind, name, stages):
    config = glyphs(adapter__kind=kind, student=name, teacher="none")
    names = [of.rpartition("qkv.")[2] for of in build(name, 10, config, seed=0).trainable()]
    assert names.count("outer.u") == names.count("outer.v") == stages
    assert names.count("inner.core.c") == (stages if kind == "fact_tk" else 0)


@pytest.mark.parametrize("kind", ["fact_tt", "fact_tk"])
def test_fact_says_where_weights_are_no_squares(kind):
    config = glyphs(adapter__kind=kind, student="random:vit_so400m_patch14_siglip_224", teacher="none")
    with torch.device("meta"), pytest.raises(BadInput, match="one of 4304 x 1152 cannot be") as caught:
        build(config.student, 10, config, seed=None)
    assert "\n" not in str(caught.value)


def test_arc_starts_as_published():
    """U and the second c at Xavier, all else at zero, so that the half at attention starts at the identity."""
    state = fresh("arc", adapter__hidden_dim=40).trainable()
    parts = {"attn.qkv.adapter.basis.u": (6 / 88) ** 0.5, "mlp.fc1.adapter.basis.u": (6 / 88) ** 0.5}
    parts |= {"attn.qkv.adapter.c": 0, "attn.qkv.adapter.b": 0, "mlp.fc1.adapter.b": 0}
    parts |= {"mlp.fc1.adapter.c": (6 / 41) ** 0.5}
    for part, bound in parts.items():
        assert 0.9 * bound <= state[f"blocks.0.{part}"].abs().max() <= bound
    assert len(state) == 2 + 3 * 4 + 2


@pytest.mark.parametrize(("name", "stages"), [("random:vit_tiny_patch16_224", 1), (SWIN, 4)])
def test_all_blocks_of_a_stage_share_the_bases_of_arc(name, stages):
    state = build(name, 10, glyphs(adapter__kind="arc", student=name, teacher="none"), seed=0).trainable()
    assert sum(of.endswith("basis.u") for of in state) == 2 * stages
    assert sum(of.endswith("adapter.c") for of in state) == 2 * 12


def test_rlrr_starts_as_published():
    state = build("random:vit_base", 10, glyphs(adapter__kind="rlrr", student="random:vit_base"), seed=0).trainable()
    for layer, inputs in (("attn.qkv", 768), ("attn.proj", 768), ("mlp.fc1", 768), ("mlp.fc2", 3072)):
        a, b, t = (state[f"blocks.3.{layer}.{part}"] for part in "abt")
        assert 2.4 < a.abs().max() <= 6**0.5
        assert 0.98 * (6 / inputs) ** 0.5 < b.abs().max() <= (6 / inputs) ** 0.5
        assert not t.any()
    for norm in ("patch_embed.proj", "blocks.3.norm1", "blocks.3.norm2", "norm"):
        assert state[f"{norm}.scale"].mean().item() == pytest.approx(1, abs=4e-3)
        assert state[f"{norm}.shift"].std().item() == pytest.approx(0.02, rel=0.15)


@pytest.mark.parametrize(("name", "norms"), [("random:vit_tiny_patch16_224", 2 * 12 + 1), (SWIN, 2 * 12 + 1 + 1 + 3)])
def test_ln_trains_all_norms_and_the_head(name, norms):
    """A Swin has them behind its patches and before its three reductions too."""
    model = build(name, 10, glyphs(adapter__kind="ln", student=name, teacher="none"), seed=0)
    trained = [module for module in model.modules() if any(p.requires_grad for p in module.parameters(recurse=False))]
    assert [type(module).__name__ for module in trained] == ["LayerNorm"] * norms + ["Linear"]


@pytest.mark.parametrize("name", ["random:vit_tiny_patch16_224", SWIN])
def test_difffit_trains_biases_scales_of_norms_and_gains_that_start_at_one(name):
    def trained(kind):
        return build(name, 10, glyphs(adapter__kind=kind, student=name, teacher="none"), seed=0).trainable()

    ours = {key.replace(".operation", ""): value for key, value in trained("difffit").items()}
    gains = {key for key in ours if key.endswith(".gain")}
    assert ours.keys() - gains == trained("bitfit").keys() | trained("ln").keys()
    assert len(gains) == 2 * 12
    assert all((ours[key] == 1).all() for key in gains)


def test_all_gains_of_ia3_start_at_one():
    state = fresh("ia3").trainable()
    gains = [value for name, value in state.items() if name.endswith(".gain")]
    assert len(gains) == len(state) - 2 == 2 * 3
    assert all((value == 1).all() for value in gains)


def drawn_of(model):
    return [block.attn.qkv.drawn for block in adapters.blocks_of(model.backbone)]


def test_the_frozen_matrices_of_vera_are_shared_and_the_same_whatever_the_seed():
    one, other = (drawn_of(build("glyph_base", 10, glyphs(adapter__kind="vera"), seed=seed)) for seed in (0, 1))
    assert all(drawn is one[0] for drawn in one)
    assert torch.equal(one[0].a, other[0].a)
    assert torch.equal(one[0].b, other[0].b)
    wide = drawn_of(fresh("vera", adapter__hidden_dim=256))[0]
    assert 0.98 * (6 / 48) ** 0.5 < wide.a.abs().max() <= (6 / 48) ** 0.5
    assert 0.98 * (6 / 256) ** 0.5 < wide.b.abs().max() <= (6 / 256) ** 0.5
    stages = drawn_of(build(SWIN, 10, glyphs(adapter__kind="vera", student=SWIN, teacher="none"), seed=0))
    assert [drawn.a.shape[1] for drawn in dict.fromkeys(stages)] == [96, 192, 384, 768]


def test_vera_starts_as_published_and_its_rank_may_exceed_the_width():
    state = fresh("vera", adapter__hidden_dim=256).trainable()
    assert (state["blocks.1.attn.qkv.d"] == 0.1).all()
    assert not state["blocks.1.attn.qkv.b"].any()
    assert len(state) == 2 * 3 + 2


def test_what_is_frozen_of_vera_computes_in_the_precision_of_the_backbone():
    frozen = Frozen(torch.device("cpu"))
    model = build("glyph_base", 10, glyphs(adapter__kind="vera"), seed=0, frozen=frozen.backbone)
    frozen.place(model, torch.bfloat16)
    drawn = drawn_of(model)
    assert {value.dtype for value in drawn[0].buffers()} == {torch.bfloat16}
    assert all(one is drawn[0] for one in drawn)
    assert {value.dtype for value in model.trainable().values()} == {torch.float32}


def test_dora_divides_by_lengths_that_are_constants_for_the_gradient():
    model = fresh("dora", adapter__hidden_dim=3)
    layer = adapters.blocks_of(model.backbone)[1].attn.qkv
    with torch.no_grad():
        for value in (layer.q_up.weight, layer.q_length):
            value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(0)))
    x = torch.randn(5, 48, generator=torch.Generator().manual_seed(1))
    trained = (layer.q_length, layer.q_up.weight, layer.q_down.weight)
    theirs = torch.autograd.grad(layer(x).square().sum(), trained)
    new = layer.operation.weight[:48] + layer.q_up.weight @ layer.q_down.weight
    queries = x @ (layer.q_length[:, None] * new / new.norm(dim=1, keepdim=True).detach()).T + layer.operation.bias[:48]
    torch.testing.assert_close(torch.autograd.grad(queries.square().sum(), trained), theirs, rtol=1e-4, atol=1e-4)


def test_dora_starts_with_the_lengths_of_the_rows():
    for block in adapters.blocks_of(fresh("dora").backbone):
        weight = block.attn.qkv.operation.weight
        torch.testing.assert_close(block.attn.qkv.q_length, weight[:48].norm(dim=1))
        torch.testing.assert_close(block.attn.qkv.v_length, weight[96:].norm(dim=1))
        assert not block.attn.qkv.q_up.weight.any()


def test_mona_starts_as_torch_does_and_all_but_without_the_normed_stream():
    state = fresh("mona", adapter__hidden_dim=32).trainable()
    own = {name.removeprefix("blocks.1.mlp_adapter."): of for name, of in state.items() if "1.mlp_adapter" in name}
    assert (own["normed_gain"] == 1e-6).all()
    assert (own["gain"] == 1).all()
    assert (own["norm.weight"] == 1).all()
    assert not own["norm.bias"].any()
    inputs = {"down": 48, "convs.0": 9, "convs.1": 25, "convs.2": 49, "mix": 32, "up": 32}
    for layer, number in inputs.items():
        for part in ("weight", "bias"):
            assert 0.8 * number**-0.5 < own[f"{layer}.{part}"].abs().max() <= number**-0.5
    assert len(own) == 4 + 2 * len(inputs)


def mosa_block(**changes):
    """A block of MoSA in training mode with values of its own, and its tensors as the equations take them."""
    model = build("glyph_base", 10, glyphs(adapter__kind="mosa", adapter__scale=SCALE, **changes), seed=0).double()
    block = adapters.blocks_of(model.backbone)[1]
    with torch.no_grad():
        for value in block.adapter.parameters():
            value.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel())))
    return block, dict([*block.named_parameters(), *block.named_buffers()])


def test_a_step_of_mosa_takes_one_up_at_random_and_moves_only_what_that_one_owns():
    block, tensors = mosa_block(adapter__hidden_dim=8)
    x_BTD = torch.randn(3, 17, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turns = []
    torch.manual_seed(0)
    for _ in range(200):
        block.zero_grad()
        branch = block.adapter(x_BTD)
        (turn,) = (up for up in range(4) if torch.allclose(branch, mosa(x_BTD, tensors, up), rtol=1e-9, atol=1e-9))
        branch.square().sum().backward()
        assert torch.equal(block.adapter.up_weight.grad != 0, block.adapter.owner == turn)
        assert [bool(of.any()) for of in block.adapter.up_bias.grad.chunk(4)] == [up == turn for up in range(4)]
        turns.append(turn)
    assert all(35 < turns.count(up) < 65 for up in range(4))
    assert all(value.grad.any() for value in block.adapter.parameters())


def test_every_up_of_mosa_owns_a_random_quarter_which_the_seed_decides():
    one, again, other = (
        build("glyph_base", 10, glyphs(adapter__kind="mosa", adapter__hidden_dim=16), seed=seed) for seed in (0, 0, 1)
    )
    owners, repeated, others = (
        [block.adapter.owner for block in adapters.blocks_of(model.backbone)] for model in (one, again, other)
    )
    for owner in owners:
        assert owner.flatten().bincount().tolist() == [48 * 16 / 4] * 4
        assert all((owner == up).float().mean(dim=1).std() > 0 for up in range(4))
    assert all(torch.equal(a, b) for a, b in zip(owners, repeated, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(owners, others, strict=True))
    assert not torch.equal(owners[0], owners[1])


def test_mosa_starts_as_published():
    state = fresh("mosa", adapter__hidden_dim=16).trainable()
    own = {name.removeprefix("blocks.1.adapter."): of for name, of in state.items() if "blocks.1.adapter" in name}
    assert (own.pop("norm.weight") == 1).all()
    assert 0.98 * 48**-0.5 < own.pop("down.weight").abs().max() <= 48**-0.5
    assert own.keys() == {"norm.bias", "down.bias", "up_weight", "up_bias"}
    assert not any(value.any() for value in own.values())


@pytest.mark.parametrize(("name", "deployed"), [("vit_base", 322_752), ("vit_large", 24 * (1024 * (2 + 16 + 17) + 16))])
def test_the_four_ups_of_mosa_become_one_which_is_smaller(name, deployed):
    config = glyphs(adapter__kind="mosa", adapter__hidden_dim=16, student=f"random:{name}", teacher="none")
    model = shapes(name, 10, config)
    adapters.deploy(model.backbone)
    assert sum(of.numel() for key, of in model.trainable().items() if not key.startswith("head")) == deployed


def test_an_export_of_mosa_holds_one_up_and_gives_the_tested_logits_and_is_exported_again_as_it_is(tmp_path):
    config = glyphs(adapter__kind="mosa", adapter__hidden_dim=16, optim__warmup_epochs=0)
    training = run(config, noise())
    list(training)
    student, teacher = training.student.eval(), training.teacher.eval()
    export.save(tmp_path / "a", config, student.trained_state(), {}, teacher=teacher.trained_state())
    loaded = export.load(tmp_path / "a")
    pixels = torch.as_tensor(noise(20, seed=1).pixels)
    with torch.no_grad():
        assert torch.equal(loaded.model.student(pixels), student(pixels))
        assert torch.equal(loaded.model.teacher(pixels), teacher(pixels))
    ours = loaded.model.student.trained_state()
    assert ours["blocks.0.adapter.up_bias"].shape == (48,)
    assert sum(value.numel() for value in ours.values()) == student.trainable_params() - 3 * 3 * 48
    export.save(tmp_path / "b", config, ours, {})
    with torch.no_grad():
        assert torch.equal(export.load(tmp_path / "b")(pixels), student(pixels))


def test_no_step_of_mosa_waits_for_the_device():
    training = run_on(
        Resident(noise(96), torch.device("cpu")), glyphs(adapter__kind="mosa"), torch.arange(64), torch.arange(64, 96)
    )
    with Waits() as waits:
        training.engine.train(torch.arange(64).view(2, 32), 1e-3, 1.0)
    assert waits.found == []


DROPPING = [kind for kind, known in kinds.KINDS.items() if "adapter.dropout" in known.uses]


@pytest.mark.parametrize("kind", DROPPING)
def test_dropout_zeroes_hidden_numbers_before_the_way_up_and_only_while_training(kind, monkeypatch):
    model = fresh(kind, adapter__dropout=0.3)
    given = []

    def dropping(hidden, p, training, inplace=False):
        if not p:  # timm's own
            return hidden
        given.append((hidden.shape[-1], p, training))
        return torch.zeros_like(hidden) if training else hidden

    monkeypatch.setattr(F, "dropout", dropping)
    with torch.no_grad():
        for name, value in model.trainable().items():  # without what is added behind it, which stays
            if not name.startswith("head"):
                value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(0)) * 0.1)
                if name.endswith(("up.bias", "up_bias", "adapter.b")):
                    value.zero_()
        pixels = torch.as_tensor(noise(4).pixels)
        plain = fresh("linear").with_features(pixels, [2])[1][0]
        still = model.with_features(pixels, [2])[1][0]
        dropped = model.train().with_features(pixels, [2])[1][0]
    assert not torch.allclose(still, plain, atol=1e-2)
    torch.testing.assert_close(dropped, plain, rtol=1e-4, atol=1e-4)
    assert {(width, p) for width, p, _ in given} == {(4, 0.3)}
    assert {training for *_, training in given} == {True, False}


@pytest.mark.parametrize("kind", DROPPING)
def test_runs_with_dropout_repeat_themselves_and_are_not_those_without(kind):
    def state(dropout):
        config = glyphs(adapter__kind=kind, adapter__dropout=dropout, adapter__scale=1.0, optim__warmup_epochs=0)
        training = run(config, noise())
        list(training)
        return [value.numpy().tobytes() for value in training.student.trained_state().values()]

    assert state(0.3) == state(0.3) != state(0.0)
