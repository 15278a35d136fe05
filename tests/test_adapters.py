"""Every adapter kind computes its published equation in ViT and Swin, merges where it says so, and fits or says why."""

# B batch, T tokens, D width, H hidden

import math

import pytest
import torch
from conftest import glyphs

from idat_tune import adapters, kinds
from idat_tune.config import RunConfig
from idat_tune.errors import BadInput
from idat_tune.model import build

VIT, SWIN = "random:vit_tiny_patch16_224", "random:swin_tiny_patch4_window7_224"
# A block in the middle; the Swin's is one with shifted windows.
PLACES = {
    VIT: {"index": 5, "prefix": "blocks.5.", "input": (2, 197, 192), "heads": 3},
    SWIN: {"index": 5, "prefix": "layers.2.blocks.1.", "input": (2, 14, 14, 384), "heads": 12},
}
HERE = [
    (name, kind) for name in PLACES for kind, known in kinds.KINDS.items() if name == VIT or "swin" in known.families
]
SCALE = 0.3


def config_of(kind, name, **changes):
    flat = {key.replace("__", "."): value for key, value in changes.items()}
    return RunConfig.for_task(
        "digits",
        {"student": name, "teacher": "none", "adapter.kind": kind, "adapter.scale": SCALE, "epochs": 2, **flat},
    )


def built(kind, name, **changes):
    """A model in float64 and eval mode whose values are all far from their special initial ones."""
    model = build(name, 10, config_of(kind, name, **changes), seed=0).double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.sin(torch.arange(len(parameter))))
            else:  # so that attention is far from uniform
                parameter.mul_(5)
        for parameter in model.trainable().values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


# The blocks, written out from the papers: nothing below uses the package or timm's forward.


def linear(layer):
    return lambda x: x @ layer.weight.T + (0 if layer.bias is None else layer.bias)


def norm(layer):
    def apply(x):
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.pow(2).mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias

    return apply


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def operations(block):
    return {
        "norm1": norm(block.norm1),
        "attn.qkv": linear(block.attn.qkv),
        "attn.proj": linear(block.attn.proj),
        "norm2": norm(block.norm2),
        "mlp.fc1": linear(block.mlp.fc1),
        "mlp.fc2": linear(block.mlp.fc2),
    }


def attend(x, ops, heads, bias=0.0):
    """Softmax attention over the tokens of x (N, T, D)."""
    q, k, v = ops["attn.qkv"](x).chunk(3, -1)
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias).softmax(-1)
    return ops["attn.proj"]((weights @ v).transpose(1, 2).flatten(2))


def attend_in_windows(x, ops, heads, table, window=7, shift=3):
    """Attention within shifted 7x7 windows of x (B, R, C, D), one window after the other."""
    size = x.shape[1]
    cell = torch.arange(window * window)
    row, column = cell // window, cell % window
    offset = (row[:, None] - row + window - 1) * (2 * window - 1) + column[:, None] - column + window - 1
    bias = table[offset].permute(2, 0, 1)
    band = torch.tensor([0] * (size - window) + [1] * (window - shift) + [2] * shift)
    region = 3 * band[:, None] + band
    x = x.roll((-shift, -shift), (1, 2))
    out = torch.empty_like(x)
    for top in range(0, size, window):
        for left in range(0, size, window):
            at = (slice(None), slice(top, top + window), slice(left, left + window))
            inside = region[at[1:]].flatten()
            apart = -100.0 * (inside[:, None] != inside)
            out[at] = attend(x[at].flatten(1, 2), ops, heads, bias + apart).view_as(x[at])
    return out.roll((shift, shift), (1, 2))


def feed_forward(x, ops):
    return ops["mlp.fc2"](gelu(ops["mlp.fc1"](x)))


def bottleneck(x, t, name, act):
    return act(x @ t[f"{name}down.weight"].T + t[f"{name}down.bias"]) @ t[f"{name}up.weight"].T + t[f"{name}up.bias"]


def conv_bottleneck(x, t, name):
    """One pixel and one of its 3x3 neighbours after the other."""

    def quick(x):
        return x / (1 + torch.exp(-1.702 * x))

    def convolved(grid):
        weight, out = t[f"{name}conv.weight"], torch.zeros_like(grid) + t[f"{name}conv.bias"]
        rows, columns = grid.shape[1:3]
        for r in range(rows):
            for c in range(columns):
                for dr in (-1, 0, 1):
                    for dc in (-1, 0, 1):
                        if 0 <= r + dr < rows and 0 <= c + dc < columns:
                            out[:, r, c] += grid[:, r + dr, c + dc] @ weight[:, :, dr + 1, dc + 1].T
        return out

    hidden = quick(x @ t[f"{name}down.weight"].T + t[f"{name}down.bias"])
    if hidden.ndim == 3:
        side = math.isqrt(hidden.shape[1] - 1)
        first = convolved(hidden[:, :1, None])[:, :, 0]
        rest = convolved(hidden[:, 1:].unflatten(1, (side, side))).flatten(1, 2)
        hidden = torch.cat([first, rest], 1)
    else:
        hidden = convolved(hidden)
    return quick(hidden) @ t[f"{name}up.weight"].T + t[f"{name}up.bias"]


def rep(x, t, name):
    hidden = x @ t[f"{name}down.weight"].T + t[f"{name}down.bias"]
    half, width = hidden.shape[-1] // 2, x.shape[-1]
    upper = hidden[..., :half] @ t[f"{name}up_weight"][: width // 2].T
    lower = hidden[..., half:] @ t[f"{name}up_weight"][width // 2 :].T
    return x + SCALE * (torch.cat([upper, lower], -1) + t[f"{name}up_bias"])


def lora(x, t, ops):
    q, k, v = ops["attn.qkv"](x).chunk(3, -1)
    q = q + SCALE * (x @ t["attn.qkv.q_down.weight"].T) @ t["attn.qkv.q_up.weight"].T
    v = v + SCALE * (x @ t["attn.qkv.v_down.weight"].T) @ t["attn.qkv.v_up.weight"].T
    return torch.cat([q, k, v], -1)


def expected(kind, x, ops, attention, t):
    """The block's output, from its frozen operations and its trained tensors `t`."""

    def adapter(x):
        return bottleneck(x, t, "adapter.", gelu)

    if kind == "vpt_deep":
        x = torch.cat([x[:, :1], t["prompts"].expand(len(x), -1, -1), x[:, 1:]], 1)
    plain = dict(ops)
    if kind == "lora":
        ops = {**plain, "attn.qkv": lambda x: lora(x, t, plain)}
    if kind == "repadapter":
        ops = {**plain, **{n: (lambda x, n=n: plain[n](rep(x, t, f"{n}."))) for n in ("attn.qkv", "mlp.fc1")}}
    if kind == "ssf":
        ops = {n: (lambda x, n=n, op=op: op(x) * t[f"{n}.scale"] + t[f"{n}.shift"]) for n, op in plain.items()}
    first, second = 0, 0
    normed = ops["norm1"](x)
    if kind == "parallel_shared":
        first = SCALE * adapter(x)
    if kind == "convpass":
        first = SCALE * conv_bottleneck(normed, t, "attention_adapter.")
    x = x + attention(normed, ops) + first
    normed = ops["norm2"](x)
    if kind in ("parallel", "parallel_shared"):
        second = SCALE * adapter(x)
    if kind == "adaptformer":
        second = SCALE * bottleneck(x, t, "adapter.", lambda x: x.clamp_min(0))
    if kind == "convpass":
        second = SCALE * conv_bottleneck(normed, t, "mlp_adapter.")
    x = x + feed_forward(normed, ops) + second
    if kind == "sequential":
        x = x + adapter(x)
    if kind == "vpt_deep":
        x = torch.cat([x[:, :1], x[:, 1 + len(t["prompts"]) :]], 1)
    return x


@pytest.mark.parametrize(("name", "kind"), HERE)
def test_a_block_computes_the_published_equation(name, kind):
    place = PLACES[name]
    model = built(kind, name)
    # Where the frozen weights themselves train, the reference takes them from the model.
    plain = model if kind in ("full", "bitfit") else built("linear", name)
    raw = adapters.blocks_of(plain.backbone)[place["index"]]
    trained = {
        n.removeprefix(place["prefix"]): p for n, p in model.trainable().items() if n.startswith(place["prefix"])
    }

    def attention(x, ops):
        if name == VIT:
            return attend(x, ops, place["heads"])
        return attend_in_windows(x, ops, place["heads"], raw.attn.relative_position_bias_table)

    x = torch.randn(place["input"], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with torch.no_grad():
        found = adapters.blocks_of(model.backbone)[place["index"]](x)
        wanted = expected(kind, x, operations(raw), attention, trained)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PLACES)
def test_every_block_has_its_adapter_and_all_of_them_and_the_head_train(name):
    model = build(name, 10, config_of("sequential", name), seed=0)
    blocks = len(adapters.blocks_of(model.backbone))
    assert len(model.trainable()) == 4 * blocks + 2
    for block, width in zip(adapters.blocks_of(model.backbone), model.block_widths(), strict=True):
        assert block.adapter.down.weight.shape == (4, width)


@pytest.mark.parametrize("kind", ["sequential", "parallel"])
def test_the_papers_adapters_start_from_a_truncated_normal_of_002(kind):
    model = build("glyph_base", 10, glyphs(adapter__kind=kind, adapter__hidden_dim=32), seed=0)
    for name, value in model.trainable().items():
        if name.endswith("bias"):
            assert not value.any()
        else:
            assert 0.017 < value.std() < 0.023, name


@pytest.mark.parametrize("kind", ["lora", "adaptformer", "repadapter", "convpass"])
def test_kinds_that_start_at_zero_leave_the_features_unchanged(kind):
    pixels = torch.randint(0, 256, (4, 1, 32, 32))
    plain = build("glyph_base", 10, glyphs(adapter__kind="linear"), seed=0).eval()
    model = build("glyph_base", 10, glyphs(adapter__kind=kind, adapter__scale=1.0), seed=0).eval()
    features = [m.with_features(pixels, [2])[1][0] for m in (plain, model)]
    torch.testing.assert_close(*features, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [name for name, known in kinds.KINDS.items() if "adapter.scale" in known.uses])
def test_at_scale_zero_a_model_is_the_plain_backbone_with_its_head(kind):
    pixels = torch.randint(0, 256, (4, 1, 32, 32))
    model = build("glyph_base", 10, glyphs(adapter__kind=kind, adapter__scale=0.0), seed=0).eval()
    plain = build("glyph_base", 10, glyphs(adapter__kind="linear"), seed=0).eval()
    head = {name: value for name, value in model.trained_state().items() if name.startswith("head.")}
    plain.load_trained_state(head)
    torch.testing.assert_close(model(pixels), plain(pixels), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["glyph_base", VIT, SWIN])
@pytest.mark.parametrize("kind", [kind for kind, known in kinds.KINDS.items() if known.merges or not known.uses])
def test_a_merged_model_gives_the_same_logits_and_is_a_plain_backbone(name, kind):
    model = build(name, 10, config_of(kind, name, adapter__scale=1.0), seed=0).eval()
    with torch.no_grad():
        for key, parameter in model.trainable().items():
            if kind != "full" and not key.startswith("head"):
                parameter.add_(0.03 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    spec = model.spec
    pixels = torch.randint(0, 256, (2, spec.channels, spec.size, spec.size), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        before = model(pixels)
        model.merge(kind)
        after = model(pixels)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)
    extra = 0 if kind != "ssf" or name != SWIN else 3  # a Swin's three reductions get a bias
    plain = build(name, 10, config_of("linear", name), seed=0)
    assert len(list(model.parameters())) == len(list(plain.parameters())) + extra


def test_what_does_not_merge_says_so():
    model = build("glyph_base", 10, glyphs(), seed=0)
    with pytest.raises(BadInput, match="sequential cannot be merged into the backbone; what can: .*lora, ssf"):
        model.merge("sequential")


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_a_kind_is_changed_by_the_settings_that_it_uses_and_by_no_other(kind):
    def state(**changes):
        model = build("glyph_base", 10, glyphs(adapter__kind=kind, **changes), seed=0).eval()
        with torch.no_grad():
            for value in model.trainable().values():
                value.add_(0.01)
            return model(torch.full((1, 1, 32, 32), 7)), model.trainable_params()

    logits, count = state()
    changes = {"adapter.hidden_dim": 8, "adapter.scale": 0.7, "adapter.init": "zero_up"}
    for key, value in changes.items():
        other, other_count = state(**{key.replace(".", "__"): value})
        same = count == other_count and torch.equal(logits, other)
        assert same != (key in kinds.KINDS[kind].uses), key


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        (
            "glyph_base",
            {"adapter.hidden_dim": 49},
            "hidden_dim 49 is larger than the narrowest block, which is 48 wide",
        ),
        (SWIN, {"adapter.hidden_dim": 97}, "is larger than the narrowest block, which is 96 wide; take 96 or less"),
        ("glyph_base", {"adapter.kind": "lora", "adapter.hidden_dim": 64}, "is larger than the narrowest block"),
        ("random:swinv2_tiny_window8_256", {}, "no adapter fits SwinTransformerV2 with SwinTransformerV2Block"),
    ],
)
def test_an_adapter_that_does_not_fit_is_said_in_one_sentence(name, changes, sentence):
    config = RunConfig.for_task("digits", changes)
    with pytest.raises(BadInput, match=sentence) as caught:
        build(name, 10, config, seed=0)
    assert "\n" not in str(caught.value)


def test_blocks_with_other_equations_are_refused():
    class Foreign(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = torch.nn.Sequential(torch.nn.TransformerEncoderLayer(8, 2))

    with pytest.raises(BadInput, match="no adapter fits Foreign with TransformerEncoderLayer"):
        adapters.insert(Foreign(), glyphs().adapter)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"adapter.hidden_dim": 0}, "adapter.hidden_dim cannot be 0"),
        ({"adapter.kind": "repadapter", "adapter.hidden_dim": 5}, "repadapter splits it into 2 groups; make it even"),
        ({"student": "swin_base", "adapter.kind": "vpt_deep"}, "vpt_deep cannot sit in student swin_base; what can:"),
        ({"teacher": "swin_small", "adapter.kind": "vpt_deep"}, "vpt_deep cannot sit in teacher swin_small"),
        ({"adapter.kind": "lorra"}, "unknown adapter.kind 'lorra'; did you mean 'lora'?"),
    ],
)
def test_a_config_that_cannot_be_is_refused_before_anything_is_built(changes, sentence):
    with pytest.raises(BadInput, match=sentence) as caught:
        RunConfig.for_task("dtd", changes)
    assert "\n" not in str(caught.value)


def test_masks_reach_the_attention_of_a_wrapped_vit_block():
    model = built("parallel", VIT)
    block = adapters.blocks_of(model.backbone)[0]
    x = torch.randn(1, 197, 192, dtype=torch.float64)
    mask = torch.zeros(197, 197, dtype=torch.float64)
    mask[:, 100:] = -math.inf
    with torch.no_grad():
        seen, changed = block(x, attn_mask=mask)[:, :100], x.clone()
        changed[:, 100:] *= -2
        torch.testing.assert_close(block(changed, attn_mask=mask)[:, :100], seen)
        assert not torch.allclose(block(changed)[:, :100], block(x)[:, :100])


@pytest.mark.parametrize("kind", ["vpt_deep", "sequential", "convpass", "lora"])
def test_an_adapted_model_can_be_exported_for_batches_of_any_size(kind):
    config = glyphs(adapter__kind=kind, teacher="none")
    student = build("glyph_base", 10, config, seed=0).eval()
    images = torch.randint(0, 256, (5, 1, 32, 32), dtype=torch.uint8)
    program = torch.export.export(student, (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    with torch.no_grad():
        for count in (1, 3, 5):
            exported, plain = program.module()(images[:count]), student(images[:count])
            torch.testing.assert_close(exported, plain, rtol=1e-4, atol=1e-5)
