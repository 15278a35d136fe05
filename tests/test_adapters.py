"""Every adapter kind computes its published equation in ViT and Swin, merges where it says so, and fits or says why."""

# B batch, T tokens, D width, H hidden

import math

import pytest
import torch
from conftest import glyphs
from equations import SCALE, attend, attend_in_windows, expected

from idat_tune import adapters, kinds
from idat_tune.backbones import family
from idat_tune.config import RunConfig
from idat_tune.errors import BadInput
from idat_tune.model import build

VIT, SWIN = "random:vit_tiny_patch16_224", "random:swin_tiny_patch4_window7_224"
# A block in the middle; the Swin's is one with shifted windows.
PLACES = {
    VIT: {"index": 5, "first": "blocks.0.", "prefix": "blocks.5.", "input": (2, 197, 192), "heads": 3},
    SWIN: {
        "index": 5,
        "first": "layers.2.blocks.0.",
        "prefix": "layers.2.blocks.1.",
        "input": (2, 14, 14, 384),
        "heads": 12,
    },
}
HERE = [
    (name, kind) for name in PLACES for kind, known in kinds.KINDS.items() if name == VIT or "swin" in known.families
]


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


@pytest.mark.parametrize(
    ("name", "kind", "changes"),
    [
        *((name, kind, {}) for name, kind in HERE),
        *((name, "lora", {"adapter__targets": targets}) for name in PLACES for targets in ("qkv", "all")),
    ],
)
def test_a_block_computes_the_published_equation(name, kind, changes):
    place = PLACES[name]
    model = built(kind, name, **changes)
    # Where the frozen weights themselves train, the reference takes them from the model.
    plain = model if kind in ("full", "bitfit", "ln", "difffit") else built("linear", name)
    raw = adapters.blocks_of(plain.backbone)[place["index"]]
    # What the blocks of a stage share is the first one's; of all else the block has its own. Some of it is frozen.
    added = {
        n.removeprefix(prefix): p
        for prefix in (place["first"], place["prefix"])
        for n, p in [*model.trainable().items(), *model.backbone.named_buffers()]
        if n.startswith(prefix)
    }

    def attention(x, ops):
        if name == VIT:
            return attend(x, ops, place["heads"])
        return attend_in_windows(x, ops, place["heads"], raw.attn.relative_position_bias_table)

    x = torch.randn(place["input"], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with torch.no_grad():
        found = adapters.blocks_of(model.backbone)[place["index"]](x)
        wanted = expected(kind, x, raw, attention, added)
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


MERGING = [
    (name, kind, {})
    for name in ("glyph_base", VIT, SWIN)
    for kind, known in kinds.KINDS.items()
    if family(name) in known.merges or not known.uses
]


@pytest.mark.parametrize(
    ("name", "kind", "changes"),
    [*MERGING, *((name, "lora", {"adapter__targets": of}) for name in (VIT, SWIN) for of in ("qkv", "all"))],
)
def test_a_merged_model_gives_the_same_logits_and_is_a_plain_backbone(name, kind, changes):
    model = build(name, 10, config_of(kind, name, adapter__scale=1.0, **changes), seed=0).double().eval()
    model.dtype = torch.float64
    with torch.no_grad():
        for key, parameter in model.trainable().items():
            if kind != "full" and not key.startswith("head"):
                parameter.add_(0.03 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    spec = model.spec
    pixels = torch.randint(0, 256, (2, spec.channels, spec.size, spec.size), generator=torch.Generator().manual_seed(4))
    before = model(pixels)
    model.merge(kind)
    torch.testing.assert_close(model(pixels), before, rtol=0, atol=1e-9)
    extra = 0 if kind != "ssf" or name != SWIN else 3  # a Swin's three reductions get a bias
    plain = build(name, 10, config_of("linear", name), seed=0)
    assert len(list(model.parameters())) == len(list(plain.parameters())) + extra


def test_what_does_not_merge_says_so():
    model = build("glyph_base", 10, glyphs(), seed=0)
    with pytest.raises(BadInput, match="sequential cannot be merged into a vit; what can: .*lora, ssf.*arc"):
        model.merge("sequential")


def test_half_of_arc_cannot_be_merged_in_a_swin_and_says_so():
    model = build(SWIN, 10, config_of("arc", SWIN), seed=0)
    with pytest.raises(BadInput, match="arc cannot be merged into a swin; what can: .*lora, ssf") as caught:
        model.merge("arc")
    assert "arc" not in str(caught.value).partition("what can")[2]


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_a_kind_is_changed_by_the_settings_that_it_uses_and_by_no_other(kind):
    def state(**changes):
        model = build("glyph_base", 10, glyphs(adapter__kind=kind, **changes), seed=0)
        torch.manual_seed(0)
        with torch.no_grad():
            for value in model.trainable().values():
                value.add_(0.01)
            return model(torch.full((1, 1, 32, 32), 7)), model.trainable_params()

    logits, count = state()
    changes = {"adapter.hidden_dim": 8, "adapter.scale": 0.7, "adapter.init": "zero_up", "adapter.targets": "all"}
    changes["adapter.dropout"] = 0.5
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
