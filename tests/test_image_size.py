"""Images of another size than the backbones were pretrained on: positions are resampled, and everything follows."""

import json

import pytest
import timm
import torch
from conftest import command, glyphs, noise
from safetensors.torch import save_file
from test_weights import DINO, SMALL, SWIN, folder, loaded, values_of  # noqa: F401 - a fixture

import idat_tune
from idat_tune import cost, data, embedded, model, run, single, space
from idat_tune.config import RunConfig
from idat_tune.errors import BadInput
from idat_tune.search.config import SearchConfig
from idat_tune.search.plan import Plan


def pair(student, teacher="none", **changes):
    return RunConfig.for_task("digits", {"student": student, "teacher": teacher, "epochs": 1, **changes})


@pytest.mark.parametrize(("name", "size"), [(SMALL, 96), (DINO, 224), (SWIN, 96), (SWIN, 256)])
def test_a_backbone_at_another_size_is_what_timm_makes_of_its_weights(folder, tmp_path, name, size):  # noqa: F811
    save_file(values_of(name), folder / f"{name}.safetensors")
    theirs = timm.create_model(
        name,
        num_classes=0,
        img_size=size,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(folder / f"{name}.safetensors"), "num_classes": 0},
    )
    found = loaded(name, size)
    for key, value in theirs.state_dict().items():
        assert torch.equal(found[key], value), key


def test_the_size_is_the_backbones_own_unless_given():
    assert model.input_spec(f"random:{DINO}").size == 518
    assert model.input_spec(f"random:{DINO}", 224).size == 224
    assert pair(f"random:{DINO}").flat()["image_size"] is None


@pytest.mark.parametrize(
    ("name", "size", "sentence"),
    [
        (
            DINO,
            225,
            f"image_size 225 cannot be: {DINO} cuts images into patches of 14 pixels; take a multiple of",
        ),
        ("glyph_base", 36, "patches of 8 pixels; take a multiple of 8, such as 32"),
        (SWIN, 98, "patches of 4 pixels"),
        ("vit_tiny_r_s16_p8_224", 40, "patches of 32 pixels; take a multiple of 32, such as 32"),
    ],
)
def test_a_size_that_patches_do_not_fill_is_refused(name, size, sentence):
    with pytest.raises(BadInput, match=sentence):
        model.check(pair(f"random:{name}", image_size=size))


@pytest.mark.parametrize("size", [0, -224, 4096, "big", True, 1.5])
def test_a_size_that_is_none_is_refused_by_the_config(size):
    with pytest.raises(BadInput, match="image_size cannot be"):
        pair("glyph_base", image_size=size)


def test_student_and_teacher_see_the_same_size_and_train_at_it():
    config = pair(f"random:{SMALL}", "random:vit_tiny_patch16_224", image_size=64, batch_size=4)
    student, teacher = model.build_pair(config, 10)
    assert (student.spec.size, teacher.spec.size) == (64, 64)
    (epoch,) = run.run(config, noise(8, size=64, channels=3))
    assert epoch.train_loss > 0
    with pytest.raises(
        BadInput, match="3x224x224 images but student .* choose alike, or set one size for both, such as image_size=160"
    ):
        model.check(pair(f"random:{SMALL}", "random:vit_tiny_patch16_224"))


def test_images_of_another_size_than_the_configs_are_refused():
    with pytest.raises(BadInput, match=r"takes 1x64x64 images, not 1x32x32"):
        run.run(glyphs(image_size=64), noise())


def test_an_embedded_backbone_keeps_its_features_nearly_where_its_images_grow():
    small, large = (embedded.create_backbone("glyph_base", size=size).eval() for size in (32, 64))
    images = torch.from_numpy(data.load("digits", "val", 32, 1).pixels[:16]).float() / 255
    grown = torch.nn.functional.interpolate(images, 64, mode="bicubic")
    with torch.no_grad():
        features = small((images - 0.5) / 0.5), large((grown - 0.5) / 0.5)
    assert large.pos_embed.shape == (1, 65, 48)
    assert torch.equal(large.patch_embed.proj.weight, small.patch_embed.proj.weight)
    assert torch.nn.functional.cosine_similarity(*features).mean() > 0.5


def test_a_run_is_trained_exported_and_used_at_its_size(tmp_path):
    single.train_once(glyphs(image_size=64, epochs=1, teacher="none"), tmp_path / "student", test=False)
    student = idat_tune.load(tmp_path / "student")
    assert (student.config.image_size, student.model.spec.size) == (64, 64)
    images = data.load("digits", "val", 64, 1)
    assert student(torch.from_numpy(images.pixels[:2])).shape == (2, 10)


def test_what_a_run_costs_follows_the_size():
    own, smaller = (cost.describe(pair(f"random:{DINO}", image_size=size)) for size in (None, 224))
    assert own["gflop_per_image"]["forward"] > 4 * smaller["gflop_per_image"]["forward"]
    assert own["memory_gb"] > 4 * smaller["memory_gb"]
    assert own["trainable_params"] == smaller["trainable_params"]


def test_the_command_line_describes_a_size(tmp_path):
    pair = ("describe", "--student", DINO, "--teacher", "vit_small", "--json")
    done = command(*pair, "--set", "image_size=224", cwd=tmp_path)
    assert json.loads(done.stdout)["teacher"]["backbone"] == "vit_small"
    done = command(*pair, "--set", "image_size=230", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "patches of 14 pixels" in done.stderr


def test_a_search_holds_one_size_for_all_its_trials(tmp_path):
    searched = space.parse({"params": {"image_size": {"choice": [32, 64]}}})
    common = {"name": "x", "task": "digits", "space": searched, "out": tmp_path}
    with pytest.raises(BadInput, match="image_size cannot be searched: all trials share the same images; hold it with"):
        Plan.checked(SearchConfig.of(**common))
    assert Plan.checked(SearchConfig.of(**common, fixed={"image_size": 64})).config_of({}).image_size == 64
