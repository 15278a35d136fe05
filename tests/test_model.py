"""Pairs of backbones, each with its own normalisation, and where weights come from."""

import json
import time

import numpy as np
import pytest
import timm
import torch
from conftest import glyphs, noise
from safetensors.torch import save_file

from idat_tune import model, weights
from idat_tune.backbones import family
from idat_tune.config import RunConfig
from idat_tune.errors import BadInput
from idat_tune.run import run

VIT, SWIN = "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"
TAGGED = {VIT: f"{VIT}.augreg_in21k", SWIN: f"{SWIN}.ms_in22k"}


def pair_config(student, teacher, **changes):
    flat = {key.replace("__", "."): value for key, value in changes.items()}
    return RunConfig.for_task(
        "digits",
        {"student": student, "teacher": teacher, "epochs": 1, "batch_size": 2, "optim.warmup_epochs": 0, **flat},
    )


# Pairs


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        (f"random:{VIT}", f"random:{VIT}"),
        (f"random:{SWIN}", f"random:{SWIN}"),
        (f"random:{VIT}", f"random:{SWIN}"),
        (f"random:{SWIN}", f"random:{VIT}"),
        (f"random:{SWIN}", "none"),
    ],
)
def test_any_pair_of_vit_and_swin_trains_together(student, teacher):
    training = run(pair_config(student, teacher), noise(4, size=224, channels=3))
    before = training.student.trained_state()
    (epoch,) = training
    assert (epoch.train_ce_teacher is None) == (teacher == "none")
    after = training.student.trained_state()
    assert all(not torch.equal(before[name], after[name]) for name in before)


def test_a_vit_and_a_swin_each_normalise_as_they_were_pretrained():
    config = pair_config(f"random:{TAGGED[VIT]}", f"random:{TAGGED[SWIN]}")
    student, teacher = model.build_pair(config, 10)
    pixels = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    wanted = {
        student: (pixels / 255 - 0.5) / 0.5,
        teacher: (pixels / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1),
    }
    for adapted, normalised in wanted.items():
        seen = []
        hook = adapted.backbone.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(inputs[0]))
        with torch.no_grad():
            adapted.eval()(pixels)
        hook.remove()
        torch.testing.assert_close(seen[0], normalised, rtol=0, atol=1e-5)


def test_teacher_and_student_of_one_name_start_apart():
    student, teacher = model.build_pair(glyphs(teacher="glyph_base"), 10)
    for name, value in student.trainable().items():
        if value.any():
            assert not torch.equal(value, teacher.trainable()[name])


def test_a_vit_and_a_swin_have_no_tokens_in_common():
    with pytest.raises(BadInput, match="distill.loss feature compares tokens, and a vit has others than a swin"):
        pair_config(f"random:{VIT}", f"random:{SWIN}", distill__loss="feature")


def test_vits_of_other_patches_have_no_tokens_in_common():
    config = pair_config(f"random:{VIT}", "random:vit_small_patch32_224", distill__loss="feature")
    with pytest.raises(BadInput, match="the student has 197 where the teacher has"):
        list(run(config, noise(4, size=224, channels=3)))


def test_swins_of_any_depth_can_be_compared_by_features():
    config = pair_config(f"random:{SWIN}", f"random:{SWIN}", distill__loss="feature", adapter__kind="linear")
    training = run(config, noise(2, size=224, channels=3))
    widths = [layer.out_features for layer in training.engine.bridge.maps]
    assert widths == [96] * 2 + [192] * 2 + [384] * 6 + [768] * 2
    (epoch,) = training
    assert epoch.train_distill > 0


def test_a_pair_that_sees_different_images_is_refused():
    with pytest.raises(BadInput, match="teacher glyph_small takes 1x32x32 images but student"):
        model.build_pair(pair_config(f"random:{VIT}", "glyph_small"), 10)


def test_a_head_for_other_classes_than_the_labels_is_refused():
    with pytest.raises(BadInput, match="the images have label 9, but the heads only 5 classes"):
        run(glyphs(), noise(), classes=5)


def test_families_are_told_by_name():
    assert [family(name) for name in ("vit_base", "swin_small", "random:swin_tiny_x", "glyph_base")] == [
        "vit",
        "swin",
        "swin",
        "vit",
    ]


# Weights


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No folder, an empty cache, no hub."""
    from huggingface_hub import constants

    monkeypatch.delenv(weights.FOLDER, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.fixture
def folder(nowhere, monkeypatch):
    """A folder that --weights would name."""
    monkeypatch.setenv(weights.FOLDER, str(nowhere))
    return nowhere


def checkpoint(name, **changed):
    """A full state as the hub has it, with a classifier of other classes."""
    torch.manual_seed(5)
    state = timm.create_model(name, num_classes=17).state_dict()
    return {**state, **changed}


@pytest.mark.parametrize("name", [VIT, SWIN])
def test_weights_come_from_the_folder_that_is_named(folder, name):
    state = checkpoint(name)
    save_file(state, folder / f"{TAGGED[name]}.safetensors")
    built = model.build(TAGGED[name], 10, pair_config("glyph_base", "none", adapter__kind="linear"), seed=0)
    own = built.backbone.state_dict()
    assert all(torch.equal(own[key], value) for key, value in state.items() if not key.startswith("head."))
    assert built.backbone.get_classifier().weight.shape[0] == 10


def test_a_short_name_names_a_file_too(folder):
    save_file({"x": torch.zeros(1)}, folder / "vit_base.safetensors")
    assert weights.find("vit_base_patch16_224.augreg_in21k") == folder / "vit_base.safetensors"
    assert weights.in_folder("vit_base_patch16_224.orig_in21k") is None


def test_a_published_npz_is_found_under_its_own_name(folder):
    published = "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0.npz"
    (folder / published).write_bytes(b"")
    assert weights.in_folder("vit_base_patch16_224.augreg_in21k") == folder / published


def as_npz(backbone):
    """A ViT's values in the layout of the original JAX code."""
    state = {key: value.numpy() for key, value in backbone.state_dict().items()}
    width, heads = backbone.embed_dim, backbone.blocks[0].attn.num_heads
    out = {
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "cls": state["cls_token"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
    }
    for index in range(len(backbone.blocks)):
        ours, theirs = f"blocks.{index}.", f"Transformer/encoderblock_{index}/"
        attention = f"{theirs}MultiHeadDotProductAttention_1/"
        for part, name in enumerate(("query", "key", "value")):
            rows = slice(part * width, (part + 1) * width)
            out[f"{attention}{name}/kernel"] = state[f"{ours}attn.qkv.weight"][rows].T.reshape(width, heads, -1)
            out[f"{attention}{name}/bias"] = state[f"{ours}attn.qkv.bias"][rows].reshape(heads, -1)
        out[f"{attention}out/kernel"] = state[f"{ours}attn.proj.weight"].T.reshape(heads, -1, width)
        out[f"{attention}out/bias"] = state[f"{ours}attn.proj.bias"]
        for layer, (norm, fc) in enumerate((("norm1", "fc1"), ("norm2", "fc2"))):
            out[f"{theirs}LayerNorm_{2 * layer}/scale"] = state[f"{ours}{norm}.weight"]
            out[f"{theirs}LayerNorm_{2 * layer}/bias"] = state[f"{ours}{norm}.bias"]
            out[f"{theirs}MlpBlock_3/Dense_{layer}/kernel"] = state[f"{ours}mlp.{fc}.weight"].T
            out[f"{theirs}MlpBlock_3/Dense_{layer}/bias"] = state[f"{ours}mlp.{fc}.bias"]
    return out


def test_an_npz_of_the_original_code_is_read(folder):
    torch.manual_seed(5)
    original = timm.create_model(VIT, num_classes=0)
    np.savez(folder / f"{TAGGED[VIT]}.npz", **as_npz(original))
    built = model.build(TAGGED[VIT], 10, pair_config("glyph_base", "none", adapter__kind="linear"), seed=0)
    own = built.backbone.state_dict()
    for key, value in original.state_dict().items():
        torch.testing.assert_close(own[key], value, msg=key)


@pytest.mark.parametrize(
    ("name", "changed", "sentence"),
    [
        (
            VIT,
            {"blocks.3.mlp.fc1.weight": torch.zeros(5, 6)},
            r"'blocks.3.mlp.fc1.weight' has shape \(5, 6\), but \(768",
        ),
        (VIT, {"blocks.12.norm1.weight": torch.zeros(192)}, "has no place for tensor 'blocks.12.norm1.weight'"),
        (VIT, {"blocks.3.mlp.fc1.weight": None}, "tensor 'blocks.3.mlp.fc1.weight' is missing"),
        (
            SWIN,
            {"layers.1.blocks.0.attn.qkv.bias": torch.zeros(3)},
            r"'layers.1.blocks.0.attn.qkv.bias' has shape",
        ),
        (SWIN, {"layers.7.blocks.0.norm1.bias": torch.zeros(3)}, "no place for tensor 'layers.7.blocks.0.norm1.bias'"),
    ],
)
def test_a_checkpoint_that_does_not_fit_names_the_tensor(folder, name, changed, sentence):
    state = {key: value for key, value in checkpoint(name, **changed).items() if value is not None}
    save_file(state, folder / f"{TAGGED[name]}.safetensors")
    with pytest.raises(BadInput, match=sentence) as caught:
        model.build(TAGGED[name], 10, glyphs(), seed=0)
    assert "\n" not in str(caught.value)


def test_other_weights_under_a_models_name_are_refused(folder):
    save_file(checkpoint(SWIN), folder / f"{TAGGED[VIT]}.safetensors")
    with pytest.raises(BadInput, match="does not fit"):
        model.build(TAGGED[VIT], 10, glyphs(), seed=0)


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        (f"{TAGGED[VIT]}.safetensors", b"nonsense", "is damaged"),
        (f"{TAGGED[VIT]}.npz", b"nonsense", "is damaged"),
        (f"{TAGGED[SWIN]}.npz", b"nonsense", "has no .npz reader"),
    ],
)
def test_a_damaged_checkpoint_is_named(folder, file, content, sentence):
    (folder / file).write_bytes(content)
    with pytest.raises(BadInput, match=sentence) as caught:
        model.build(file.rpartition(".")[0], 10, glyphs(), seed=0)
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_npz_of_another_width_names_the_tensor(folder):
    np.savez(folder / f"{TAGGED[VIT]}.npz", **{"embedding/kernel": np.zeros((16, 16, 3, 768), np.float32)})
    with pytest.raises(BadInput, match=r"tensor 'embedding/kernel' has shape \(16, 16, 3, 768\), but 192 must be last"):
        model.build(TAGGED[VIT], 10, glyphs(), seed=0)


@pytest.mark.parametrize("offline", [True, False])
def test_a_missing_weight_without_network_is_one_fast_sentence_with_two_remedies(nowhere, monkeypatch, offline):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    # A port of this machine on which nothing listens.
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    began = time.perf_counter()
    with pytest.raises(BadInput) as caught:
        model.build("vit_base", 10, glyphs(), seed=0)
    assert time.perf_counter() - began < 10
    for part in ("vit_base_patch16_224.augreg_in21k", "connect once", "--weights or IDAT_TUNE_WEIGHTS"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_said(nowhere, monkeypatch):
    monkeypatch.setenv(weights.FOLDER, str(nowhere / "absent"))
    with pytest.raises(BadInput, match="weights folder .*absent does not exist"):
        model.build("vit_base", 10, glyphs(), seed=0)


def test_the_cache_is_looked_into_before_the_hub(nowhere):
    full = TAGGED[VIT]
    commit = "0" * 40
    cached = nowhere / "cache" / f"models--timm--{full}"
    (cached / "snapshots" / commit).mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    save_file(checkpoint(VIT), cached / "snapshots" / commit / "model.safetensors")
    (cached / "note.json").write_text(json.dumps({}))
    assert weights.find(full) == cached / "snapshots" / commit / "model.safetensors"
    assert model.cached_weights(full) is not None


def test_random_weights_are_had_only_by_name_and_need_nothing(nowhere):
    built = model.build(f"random:{TAGGED[VIT]}", 10, glyphs(), seed=0)
    again = model.build(f"random:{VIT}", 10, glyphs(), seed=0)
    assert all(torch.equal(a, b) for a, b in zip(built.parameters(), again.parameters(), strict=True))
    with pytest.raises(BadInput):
        model.build(TAGGED[VIT], 10, glyphs(), seed=0)


def test_a_tag_that_timm_does_not_have_is_refused():
    with pytest.raises(BadInput, match="unknown pretraining tag of vit_tiny_patch16_224 'augreg_in22k'; did you mean"):
        model.build(f"{VIT}.augreg_in22k", 10, glyphs(), seed=0)
