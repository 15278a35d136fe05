"""Attention without copies has the values and the gradients of timm's, in ViTs of every kind of adapter."""

from contextlib import suppress

import pytest
import torch
from conftest import glyphs
from timm.models.vision_transformer import Attention

from idat_tune.engine.attention import keep_side_by_side
from idat_tune.engine.devices import repeating
from idat_tune.kinds import KINDS
from idat_tune.model import build

OF_VIT = [name for name, kind in KINDS.items() if "vit" in kind.families]


def attentions(model):
    return [module for module in model.modules() if type(module) is Attention]


def found(model, pixels):
    """Logits, and the gradient of all that trains and of the image."""
    pixels = pixels.clone().requires_grad_()
    logits_BC = model(pixels)
    return [logits_BC, *torch.autograd.grad(logits_BC.square().sum(), [pixels, *model.trainable().values()])]


@pytest.mark.parametrize("kind", OF_VIT)
def test_values_and_gradients_are_those_of_timm(kind):
    model = build("glyph_base", 10, glyphs(adapter__kind=kind), seed=0).double().eval()
    model.dtype = torch.float64
    for module in attentions(model):
        module.fused_attn = True
    pixels = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 255
    theirs = found(model, pixels)
    for module in attentions(model):
        keep_side_by_side(module)
        assert "forward" in vars(module)
    torch.testing.assert_close(found(model, pixels), theirs, rtol=1e-9, atol=1e-9)


def test_nothing_is_joined_where_queries_keys_and_values_are_frozen():
    module = Attention(48, 3, qkv_bias=True).requires_grad_(False)
    keep_side_by_side(module)
    x_BTD = torch.rand(2, 5, 48, requires_grad=True)
    with torch.profiler.profile() as profile:
        module(x_BTD).sum().backward()
    names = {event.name for event in profile.events()}
    assert "aten::addmm_" in names
    assert not names & {"aten::cat", "aten::stack"}


def test_norms_of_queries_and_keys_and_masks_are_kept():
    module = Attention(48, 3, qk_norm=True, norm_layer=torch.nn.LayerNorm).requires_grad_(False)
    x_BTD, mask = torch.rand(2, 5, 48), torch.tensor([[[[True, True, False, False, False]]]])
    theirs = module(x_BTD), module(x_BTD, attn_mask=mask)
    keep_side_by_side(module)
    torch.testing.assert_close((module(x_BTD), module(x_BTD, attn_mask=mask)), theirs)


def test_what_drops_or_is_another_module_stays_as_it_is():
    dropping, other = Attention(48, 3, attn_drop=0.1), torch.nn.Linear(2, 2)
    for module in (dropping, other):
        keep_side_by_side(module)
        assert "forward" not in vars(module)


def test_kernels_that_repeat_are_asked_for_on_cuda_and_only_within():
    def asked():
        return torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic

    with repeating(torch.device("cpu")):
        assert asked() == (False, False)
    with suppress(ZeroDivisionError), repeating(torch.device("cuda")):
        assert asked() == (True, True)
        assert not torch.utils.deterministic.fill_uninitialized_memory
        raise ZeroDivisionError
    assert asked() == (False, False)
    assert torch.utils.deterministic.fill_uninitialized_memory
