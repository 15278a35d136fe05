"""Pretrained weights as people have them: every usual layout gives the same values, everything else one sentence."""

import argparse
import os
import re
import zipfile
from contextlib import suppress

import numpy as np
import pytest
import timm
import torch
from conftest import glyphs
from safetensors.torch import save_file

from idat_tune import backbones, model, single, weights
from idat_tune.config import RunConfig
from idat_tune.errors import BadInput

SMALL = "test_vit.r160_in1k"  # one of timm's own for tests: 64 wide, six blocks
TINY = "vit_tiny_patch16_224.augreg_in21k"
DINO, REGISTERS = "vit_small_patch14_dinov2.lvd142m", "vit_small_patch14_reg4_dinov2.lvd142m"
SWIN = "swin_tiny_patch4_window7_224.ms_in22k"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that --weights would name; an empty cache, no hub."""
    from huggingface_hub import constants

    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.setenv(weights.FOLDER, str(folder))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


def values_of(name, **options):
    """The state of a timm model without head, with values that are all its own."""
    torch.manual_seed(5)
    state = timm.create_model(name, num_classes=0, **options).state_dict()
    return {key: torch.randn_like(value) if value.is_floating_point() else value for key, value in state.items()}


def loaded(name, image_size=None):
    """What the backbone of that name has after it was loaded, by way of the check that reads shapes alone."""
    model.check(RunConfig.for_task("digits", {"student": name, "teacher": "none", "image_size": image_size}))
    return model.frozen_backbone(name, image_size).state_dict()


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert torch.equal(found[key], value), key


def build(name, **changes):
    model.check(RunConfig.for_task("digits", {"student": name, "teacher": "none", **changes}))
    model.frozen_backbone(name)


def refused(name, **changes):
    with pytest.raises(BadInput) as caught:
        build(name, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def as_hugging_face(state, prefix="", dino=False, swin=False):
    """A state under the names of Hugging Face's ViT, DINOv2 or Swin."""
    names = {
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "patch_embed.norm": "embeddings.norm",
        "attn.proj": "attention.output.dense",
        "ls1.gamma": "layer_scale1.lambda1",
        "ls2.gamma": "layer_scale2.lambda1",
        "attn.relative": "attention.self.relative",
    }
    if not dino:
        names |= {"norm1": "layernorm_before", "norm2": "layernorm_after"}
        names |= {"mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"}
    outside = {"cls_token": "cls_token", "pos_embed": "position_embeddings", "register_tokens": "register_tokens"}
    out = {}
    for key, value in state.items():
        if "attn.qkv" in key:
            start, end = key.split("attn.qkv")
            place = start + ("attention.self." if swin else "attention.attention.")
            parts = {
                f"{place}{part}{end}": value.chunk(3)[index] for index, part in enumerate(("query", "key", "value"))
            }
        else:
            parts = {key: value}
        for name, part in parts.items():
            for ours, theirs in names.items():
                name = name.replace(ours, theirs)
            name = re.sub(r"^norm\.", "layernorm.", name)
            name = f"embeddings.{outside[name]}" if name in outside else name
            name = re.sub(r"^blocks\.", "encoder.layer.", re.sub(r"^layers\.", "encoder.layers.", name))
            out[prefix + name] = part.clone()
    return out


# Layouts


def plain(state):
    return {**state, "head.weight": torch.zeros(7, 64), "head.bias": torch.zeros(7)}


def prefixed(*prefixes):
    return lambda state: {"".join(prefixes) + key: value for key, value in state.items()}


TRAINED = argparse.Namespace(lr=1e-3, data="here")
LAYOUTS = {
    "plain": plain,
    "state_dict": lambda state: {"state_dict": plain(state), "epoch": 3},
    "model beside arguments": lambda state: {"model": state, "args": TRAINED, "optimizer": {"lr": [0.1]}},
    "a model of a model": lambda state: {"model": {"state_dict": state}},
    "module.": prefixed("module."),
    "model.": prefixed("model."),
    "backbone.": prefixed("backbone."),
    "encoder.": prefixed("encoder."),
    "several prefixes": prefixed("module.", "model.", "encoder."),
    "a prefix beside a projector": lambda state: {**prefixed("backbone.")(state), "projector.0.weight": torch.ones(2)},
    "a teacher beside its student": lambda state: {
        "student": prefixed("module.backbone.")({key: value + 1 for key, value in state.items()}),
        "teacher": {**prefixed("backbone.")(state), "head.mlp.0.weight": torch.ones(3)},
    },
    "both in one": lambda state: {
        **prefixed("student.backbone.")({key: value + 1 for key, value in state.items()}),
        **prefixed("teacher.backbone.")(state),
    },
    "a masked autoencoder": lambda state: {
        "model": {**state, "mask_token": torch.zeros(1, 1, 32), "decoder_blocks.0.norm1.weight": torch.ones(32)}
    },
    "Hugging Face": as_hugging_face,
    "Hugging Face's classifier": lambda state: {
        **as_hugging_face(state, "vit."),
        "classifier.weight": torch.zeros(3, 64),
        "vit.pooler.dense.weight": torch.zeros(64, 64),
        "vit.embeddings.mask_token": torch.zeros(1, 1, 64),
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_a_file_gives_the_same_values(folder, layout):
    state = values_of(SMALL)
    torch.save(LAYOUTS[layout](state), folder / f"{SMALL}.pth")
    assert_same(loaded(SMALL), state)


PLACES = (
    f"{SMALL}.safetensors",
    f"{SMALL}/model.safetensors",
    f"timm__{SMALL}/model.safetensors",
    f"timm--{SMALL}/model.safetensors",
    f"timm/{SMALL}/model.safetensors",
    f"timm__{SMALL}/pytorch_model.bin",
    f"models--timm--{SMALL}/snapshots/{'a' * 40}/model.safetensors",
    f"hub/models--timm--{SMALL}/snapshots/{'a' * 40}/pytorch_model.bin",
    f"{SMALL}.pt",
    f"{SMALL}.bin",
    f"{SMALL}.pth.tar",
)


@pytest.mark.parametrize("place", PLACES)
def test_a_file_is_found_wherever_the_hub_or_a_person_would_put_it(folder, place):
    state = values_of(SMALL)
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (save_file if place.endswith("safetensors") else torch.save)(state, folder / place)
    assert weights.find(SMALL) == folder / place
    assert_same(loaded(SMALL), state)


def test_the_folder_that_is_named_may_be_that_of_the_model(folder, monkeypatch):
    inner = folder / SMALL
    inner.mkdir()
    save_file(values_of(SMALL), inner / "model.safetensors")
    monkeypatch.setenv(weights.FOLDER, str(inner))
    assert weights.find(SMALL) == inner / "model.safetensors"


def test_the_main_revision_of_a_copied_cache_comes_first(folder):
    for revision in ("a" * 40, "b" * 40):
        place = folder / f"models--timm--{SMALL}" / "snapshots" / revision
        place.mkdir(parents=True)
        save_file(values_of(SMALL), place / "model.safetensors")
    assert "a" * 40 in str(weights.find(SMALL))
    (folder / f"models--timm--{SMALL}" / "refs").mkdir()
    (folder / f"models--timm--{SMALL}" / "refs" / "main").write_text("b" * 40)
    assert "b" * 40 in str(weights.find(SMALL))


def test_half_precision_is_taken_as_it_is(folder):
    state = {key: value.half() for key, value in values_of(SMALL).items()}
    save_file(state, folder / f"{SMALL}.safetensors")
    assert_same(loaded(SMALL), {key: value.float() for key, value in state.items()})


def test_positions_of_half_precision_are_resampled_in_full(folder):
    halves = {key: value.to(torch.bfloat16) for key, value in values_of(SMALL).items()}
    torch.save(halves, folder / f"{SMALL}.pth")
    found = loaded(SMALL, 96)
    torch.save({key: value.float() for key, value in halves.items()}, folder / f"{SMALL}.pth")
    assert_same(found, loaded(SMALL, 96))


def test_dinov2_is_read_from_the_original_and_from_hugging_face(folder):
    state = values_of(DINO)
    torch.save({**state, "mask_token": torch.zeros(1, 384)}, folder / "dinov2_vits14_pretrain.pth")
    assert_same(loaded(DINO), state)
    (folder / "dinov2_vits14_pretrain.pth").unlink()
    (folder / "facebook--dinov2-small").mkdir()
    theirs = as_hugging_face(state, dino=True) | {"embeddings.mask_token": torch.zeros(1, 384)}
    save_file(theirs, folder / "facebook--dinov2-small" / "model.safetensors")
    assert_same(loaded(DINO), state)


@pytest.mark.parametrize("hugging_face", [False, True])
def test_registers_of_dinov2_are_read_from_the_original_and_from_hugging_face(folder, hugging_face):
    state = values_of(REGISTERS)
    whole = {key: value for key, value in state.items() if key not in ("reg_token", "cls_token", "pos_embed")}
    # The original adds a position to the class token, timm keeps their sum.
    position = torch.randn(1, 1, 384)
    whole |= {
        "register_tokens": state["reg_token"],
        "cls_token": state["cls_token"] - position,
        "pos_embed": torch.cat([position, state["pos_embed"]], dim=1),
    }
    whole = as_hugging_face(whole, dino=True) if hugging_face else {**whole, "mask_token": torch.zeros(1, 384)}
    save_file({key: value.contiguous() for key, value in whole.items()}, folder / f"{REGISTERS}.safetensors")
    found = loaded(REGISTERS)
    for key, value in state.items():
        torch.testing.assert_close(found[key], value, msg=key)


def test_swins_are_read_from_hugging_face_too(folder):
    state = values_of(SWIN)
    # There, as in the original, a stage ends with what timm begins the next one with.
    moved = {re.sub(r"layers\.(\d)\.down", lambda m: f"layers.{int(m[1]) - 1}.down", k): v for k, v in state.items()}
    torch.save(as_hugging_face(moved, "swin.", swin=True), folder / f"{SWIN}.pth")
    assert_same(loaded(SWIN), state)


def test_the_layer_scale_of_deit3_goes_by_its_old_name(folder):
    name = "deit3_small_patch16_224.fb_in1k"
    state = values_of(name)
    old = {re.sub(r"ls([12])\.gamma", r"gamma_\1", key): value for key, value in state.items()}
    torch.save({"model": old}, folder / "deit_3_small_224_1k.pth")
    assert_same(loaded(name), state)


def test_a_deprecated_name_means_what_timm_calls_it_now(folder):
    state = values_of(TINY)
    save_file(state, folder / f"{TINY}.safetensors")
    assert_same(loaded("vit_tiny_patch16_224_in21k"), state)
    assert weights.timm_name("swin_base_patch4_window7_224_in22k") == "swin_base_patch4_window7_224.ms_in22k"
    (folder / f"{TINY}.safetensors").rename(folder / "vit_tiny_patch16_224_in21k.safetensors")
    assert_same(loaded(TINY), state)


# The original ViT's files


def google(folder, file, **extra):
    from test_model import as_npz

    torch.manual_seed(5)
    original = timm.create_model(TINY, num_classes=0)
    np.savez(folder / file, **as_npz(original), **extra)
    return original.state_dict()


def test_a_vit_is_found_under_the_name_that_papers_give_its_file(folder):
    state = google(folder, "ViT-Ti_16.npz")
    found = loaded(TINY)
    for key, value in state.items():
        torch.testing.assert_close(found[key], value, msg=key)


@pytest.mark.parametrize(
    ("extra", "wanted", "other"),
    [
        ({"pre_logits/kernel": np.zeros(1)}, "vit_base_orig", "vit_base"),
        ({"head/kernel": np.zeros(1)}, "vit_base", "vit_base_orig"),
    ],
)
def test_two_weights_that_share_a_name_are_told_apart(folder, extra, wanted, other):
    np.savez(folder / "ViT-B_16.npz", **extra)
    assert weights.available(wanted)
    assert weights.missing([wanted, other, "glyph_base", f"random:{other}", "none"]) == [other]
    assert f"ViT-B_16.npz there has those of {wanted}" in refused(other)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"embedding/kernel": np.zeros((32, 32, 3, 192), np.float32)}, "its patches are 32x32, but 16x16 are wanted"),
        ({"Transformer/encoderblock_12/LayerNorm_0/scale": np.zeros(1)}, "it has 13 blocks, but 12 are wanted"),
        ({"Transformer/encoder_norm/bias": np.full(192, np.nan, np.float32)}, "'norm.bias' holds 192 values that are"),
        ({"cls": np.array([object()])}, "does not fit"),
    ],
)
def test_an_npz_that_does_not_fit_says_why(folder, changed, sentence):
    from test_model import as_npz

    np.savez(folder / "ViT-Ti_16.npz", **{**as_npz(timm.create_model(TINY, num_classes=0)), **changed})
    assert sentence in refused(TINY)


# What is refused


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("owned",))


@pytest.mark.parametrize("layout", [lambda state: {"model": state, "config": Evil()}, lambda state: Evil()])
def test_nothing_in_a_file_is_ever_run(folder, monkeypatch, layout):
    monkeypatch.chdir(folder)
    torch.save(layout(values_of(SMALL)), folder / f"{SMALL}.pth")
    assert "could run code and is never loaded" in refused(SMALL)
    assert not (folder / "owned").exists()


def test_programs_and_whole_models_are_refused_too(folder):
    torch.save(torch.nn.Linear(2, 2), folder / f"{SMALL}.pth")
    assert "could run code and is never loaded" in refused(SMALL)
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), folder / f"{SMALL}.pth")
    assert "could run code and is never loaded" in refused(SMALL)


@pytest.mark.parametrize("end", ["safetensors", "npz", "pth", "bin"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 and no more", b"\x80\x04}q\x00."])
def test_a_damaged_file_is_named_whatever_it_should_have_been(folder, end, content):
    (folder / f"{SMALL}.{end}").write_bytes(content)
    assert re.search(rf"{re.escape(SMALL)}\.{end} (is damaged|holds no state_dict)", refused(SMALL))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_no_numbers_are_refused_by_name(folder, bad):
    state = values_of(SMALL)
    state["blocks.2.mlp.fc1.weight"][3, 4] = bad
    save_file(state, folder / f"{SMALL}.safetensors")
    assert "tensor 'blocks.2.mlp.fc1.weight' holds 1 values that are NaN or infinite" in refused(SMALL)


@pytest.mark.parametrize("end", ["npz", "pth"])
def test_a_small_file_that_would_fill_the_memory_is_refused(folder, end):
    with zipfile.ZipFile(folder / f"{TINY}.{end}", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("embedding/kernel.npy", bytes(10**6))
    assert "would unpack to 0.001 GB, more than 10 times its size" in refused(TINY)


def holds_itself():
    state = {}
    state["model"] = state
    return state


def without(key):
    return lambda state: {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without("blocks.1.attn.qkv.bias"), "tensor 'blocks.1.attn.qkv.bias' is missing"),
        (lambda s: {**s, "blocks.9.norm1.bias": torch.zeros(64)}, "has no place for tensor 'blocks.9.norm1.bias'"),
        (lambda s: {**s, "norm.bias": torch.zeros(65)}, "tensor 'norm.bias' has shape (65,), but (64,) is wanted"),
        (lambda s: {**s, "norm.bias": torch.zeros(64, dtype=torch.int8)}, "'norm.bias' is of type torch.int8"),
        (
            lambda s: {**s, "patch_embed.proj.weight": torch.zeros(64, 3, 32, 32)},
            "its patches are 32x32, but 16x16 are wanted",
        ),
        (
            lambda s: {key.replace("norm.", "fc_norm.") if key.startswith("norm.") else key: v for key, v in s.items()},
            "its last norm is 'fc_norm', of a model that pools the average of all patches, where "
            f"{SMALL} looks at the class token",
        ),
        (lambda s: {**prefixed("a.")(s), **prefixed("b.")(s)}, "holds several backbones, under 'a.' and 'b.'"),
        (lambda s: {"epoch": 3, "loss": 0.5}, "holds no state_dict (epoch, loss)"),
        (lambda s: list(s.values()), "holds no state_dict"),
        (lambda s: as_hugging_face(without("blocks.1.attn.qkv.bias")(s)), "'blocks.1.attn.qkv.bias' is missing"),
        (
            lambda s: {
                **as_hugging_face(s),
                "encoder.layer.1.attention.attention.query.weight": torch.zeros(64, 63),
            },
            "does not fit",
        ),
        (lambda s: dict(enumerate(s.values())), "holds no state_dict (0, 1, 2, 3, 4)"),
        (lambda s: {**s, "norm.bias": torch.zeros(64).to_sparse()}, "tensor 'norm.bias' is sparse; save it dense"),
        (lambda s: {**s, "register_tokens": torch.zeros(3)}, "does not fit"),
        (lambda s: {**s, "\u00b2": torch.zeros(3)}, "has no place for tensor '\u00b2'"),
        (lambda s: holds_itself(), "holds no state_dict (model)"),
    ],
)
def test_a_file_that_does_not_fit_names_the_first_that_differs(folder, change, sentence):
    torch.save(change(values_of(SMALL)), folder / f"{SMALL}.pth")
    assert sentence in refused(SMALL)


def test_another_architecture_under_a_models_name_is_refused(folder):
    torch.save(values_of(SWIN), folder / f"{SMALL}.pth")
    assert f"does not fit {SMALL}" in refused(SMALL)


def test_what_is_not_found_says_where_it_looked_and_what_lies_there(folder):
    for name in ("notes.txt", "vit_base_patch16_224.dino.pth", ".hidden"):
        (folder / name).write_text("")
    (folder / "other").mkdir()
    said = refused("vit_small")
    assert (
        f"looked in {folder} for vit_small_patch16_224.augreg_in21k, vit_small, vit_small_patch16_224_in21k, " in said
    )
    assert (
        "ViT-S_16.npz, imagenet21k_ViT-S_16.npz (.safetensors, .npz, .pth, .pt, .bin, or a folder of the hub)" in said
    )
    assert "there: notes.txt, other/, vit_base_patch16_224.dino.pth; " in said
    assert "in the Hugging Face cache for timm/vit_small_patch16_224.augreg_in21k" in said
    assert "--weights or IDAT_TUNE_WEIGHTS" in said


def test_a_file_where_a_folder_is_wanted_says_so(folder, monkeypatch):
    (folder / "x.safetensors").write_text("")
    monkeypatch.setenv(weights.FOLDER, str(folder / "x.safetensors"))
    assert "x.safetensors is a file; --weights or IDAT_TUNE_WEIGHTS names the folder that holds it" in refused(SMALL)


def test_missing_weights_and_other_sizes_show_before_an_image_is_read(folder, monkeypatch):
    monkeypatch.setattr("idat_tune.data.load", lambda *a, **k: pytest.fail("an image was read"))
    with pytest.raises(BadInput, match="are not here"):
        single.train_once(glyphs(student="vit_base", teacher="none"), None, test=False)
    with pytest.raises(BadInput, match="teacher random:vit_small takes 3x224x224 images but student"):
        single.train_once(glyphs(student=f"random:{DINO}", teacher="random:vit_small"), None, test=False)
    torch.save(without("cls_token")(values_of(SMALL)), folder / f"{SMALL}.pth")
    with pytest.raises(BadInput, match="tensor 'cls_token' is missing"):
        single.train_once(glyphs(student=SMALL, teacher="none"), None, test=False)


# Which backbones there are


@pytest.mark.parametrize(
    "name",
    ["vit_tiny_r_s16_p8_224", "flexivit_small", "vit_so150m_patch16_reg4_gap_256", "swin_s3_tiny_224", "test_vit"],
)
def test_backbones_without_a_patch_in_their_name_are_taken(name):
    model.check(RunConfig.for_task("digits", {"student": f"random:{name}", "teacher": "none"}))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("beit_base_patch16_224", "its attention has a bias by relative position"),
        ("eva02_tiny_patch14_224", "its attention turns queries and keys by position"),
        ("swinv2_tiny_window8_256", "its norms come behind attention and MLP"),
        ("vit_relpos_small_patch16_224", "its attention has a bias by relative position"),
        ("deit_tiny_distilled_patch16_224", "it is distilled, with two heads"),
        ("vit_base_mci_224", "its batch norms would go on changing"),
        (
            "vit_base_patch16_rpn_224",
            "backbone vit_base_patch16_rpn_224: no adapter fits VisionTransformer with ResPost",
        ),
        ("vit_small_patch16_dinov3", "no adapter fits Eva with EvaBlock"),
        ("timm/vit_tiny_patch16_224", "leave timm/ away: vit_tiny_patch16_224"),
        ("vit_tiny_patch16_22", "did you mean 'vit_tiny_patch16_224'?"),
        ("vit_smal", "did you mean 'vit_small'?"),
        ("resnet50", "any ViT, DeiT or Swin of timm"),
    ],
)
def test_backbones_that_cannot_be_had_say_why(name, reason):
    assert reason in refused(f"random:{name}")


def test_every_vit_deit_and_swin_of_timm_is_taken_or_refused_in_a_sentence():
    names = [name for name in timm.list_models() if re.match(r"(vit|deit|swin|flexivit|beit|eva)", name)]
    assert len(names) > 150
    taken = []
    for name in names[::9]:
        with suppress(BadInput):  # a sentence; anything else is a fault
            model.check(RunConfig.for_task("digits", {"student": f"random:{name}", "teacher": "none"}))
            taken.append(name)
    assert len(taken) > 8


def test_a_timm_name_with_a_number_needs_no_timm_to_be_refused_or_taken():
    assert backbones.check("vit_base_patch14_dinov2.lvd142m")
    with pytest.raises(BadInput, match="cannot be used"):
        backbones.check("beitv2_base_patch16_224")
