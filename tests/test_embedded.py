"""The embedded tasks are the same for ever, the embedded backbones are what their recipe says."""

import hashlib
import shutil
import subprocess
import sys
import unicodedata
from functools import cache

import numpy as np
import pytest
import safetensors.torch
import torch

from idat_tune import embedded, tasks
from idat_tune.backbones import EMBEDDED
from idat_tune.embedded import backbones, glyphs, pretrain, sprites
from idat_tune.errors import BadInput

TASKS = ("digits", "sprites_loc", "sprites_ori")
# Of pixels and labels. They change only if the tasks are changed on purpose, and then every published
# figure on them is void.
PINNED = {
    ("digits", "train"): "ebd9ad66548a5da5",
    ("digits", "val"): "04f1c6b2259b3b58",
    ("digits", "test"): "49b68b1f34b5acea",
    ("sprites_loc", "train"): "28b02e1eacbeed1f",
    ("sprites_loc", "val"): "5fb5240633977022",
    ("sprites_loc", "test"): "03e853260d547d18",
    ("sprites_ori", "train"): "2ed094662c56a51e",
    ("sprites_ori", "val"): "ab422be58df89261",
    ("sprites_ori", "test"): "1e6cc21dd170e5f0",
}
load = cache(embedded.load_split)


def content_hash(task, split):
    pixels, labels = load(task, split)
    return hashlib.sha256(pixels.tobytes() + labels.astype("<i8").tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("task", TASKS)
def test_splits_have_the_counts_and_types_of_the_task(task):
    about = tasks.get(task)
    for split, count in {"train": about.train, "val": about.val, "trainval": 1000, "test": about.test}.items():
        pixels, labels = load(task, split)
        assert pixels.shape == (count, 1, 32, 32)
        assert pixels.dtype == np.uint8
        assert labels.shape == (count,)
        assert labels.dtype == np.int64
        assert set(labels) == set(range(about.classes))


@pytest.mark.parametrize("task", TASKS)
def test_trainval_is_train_then_val(task):
    for whole, train, val in zip(load(task, "trainval"), load(task, "train"), load(task, "val"), strict=True):
        assert (whole == np.concatenate([train, val])).all()


@pytest.mark.parametrize("task", TASKS)
def test_no_image_is_in_the_test_split_and_in_trainval_nor_twice_anywhere(task):
    images = [image.tobytes() for split in ("trainval", "test") for image in load(task, split)[0]]
    assert len(set(images)) == len(images)


def test_the_two_sprite_tasks_share_no_image():
    seen = {image.tobytes() for split in ("trainval", "test") for image in load("sprites_loc", split)[0]}
    assert not any(image.tobytes() in seen for split in ("trainval", "test") for image in load("sprites_ori", split)[0])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_classes_are_as_even_in_a_split_as_in_the_whole(task, split):
    counts = np.bincount(load(task, split)[1])
    if task == "digits":
        whole = np.bincount(np.concatenate([load(task, "trainval")[1], load(task, "test")[1]]))
        assert np.abs(counts - whole * counts.sum() / 1797).max() <= 1
    else:
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize(("task", "split"), [(task, split) for task in TASKS for split in ("train", "val", "test")])
def test_every_split_has_the_pixels_and_labels_it_always_had(task, split):
    assert content_hash(task, split) == PINNED[task, split], "a published task must never change"


def test_making_a_split_neither_reads_nor_moves_numpys_global_random_state():
    np.random.seed(1)
    first = embedded.load_split("sprites_ori", "val")[0]
    drawn = np.random.random()
    np.random.seed(1)
    assert drawn == np.random.random()
    np.random.seed(2)
    assert (embedded.load_split("sprites_ori", "val")[0] == first).all()


@pytest.mark.parametrize(("task", "split", "named"), [("digit", "train", "digits"), ("digits", "tset", "test")])
def test_an_unknown_task_or_split_is_refused_with_the_nearest_known_one(task, split, named):
    with pytest.raises(BadInput, match=f"did you mean '{named}'"):
        embedded.load_split(task, split)


def test_a_sprite_lies_inside_the_frame_and_covers_the_area_of_its_outline():
    factors, _ = sprites.draw_factors("sprites_ori", "val")
    x, y = sprites._corners(factors).astype(float).transpose(2, 0, 1) / sprites.UNIT
    area = abs((x * np.roll(y, -1, 1) - np.roll(x, -1, 1) * y).sum(1)) / 2
    assert min(x.min(), y.min()) >= 0
    assert max(x.max(), y.max()) <= 32
    assert np.abs(sprites.render(factors).sum((1, 2)) / 255 - area).max() < 0.5


def test_the_centre_of_mass_of_a_sprite_lies_where_its_class_says():
    factors, labels = sprites.draw_factors("sprites_loc", "test")
    mass = load("sprites_loc", "test")[0][:, 0].astype(float)
    centre = (mass.sum(1) * (np.arange(32) + 0.5)).sum(1) / mass.sum((1, 2))
    assert np.abs(centre - factors.x).max() < 0.1
    low, high = sprites.CENTRES["sprites_loc"]
    assert (np.floor((factors.x - low) / (high - low) * 16) == labels).all()


def test_a_class_of_orientation_is_centred_on_its_angle_and_turns_anticlockwise():
    factors, labels = sprites.draw_factors("sprites_ori", "test")
    off = (factors.degrees - 22.5 * labels + 180) % 360 - 180
    assert np.abs(off).max() <= 11.25
    assert abs(off.mean()) < 0.5
    dart = list(sprites.SHAPES).index("dart")
    tip = sprites._OUTLINES[dart].argmax(0)[1]
    one = np.ones(2)
    right, up = sprites._corners(
        sprites.Factors(np.array([dart, dart]), 16 * one, 16 * one, 6 * one, np.array([0.0, 90.0]))
    )[:, tip].tolist()
    assert right == [16 * 256, 10 * 256]  # upright: the tip is above the centre
    assert up == [10 * 256, 16 * 256]  # a quarter turn on: it points left


def test_no_shape_of_the_sprites_looks_like_itself_after_a_turn():
    count = len(sprites.SHAPES)
    shape = np.repeat(np.arange(count), 16)
    middle = np.full(len(shape), 16.0)
    turned = sprites.render(sprites.Factors(shape, middle, middle, middle / 2, np.tile(22.5 * np.arange(16), count)))
    turned = turned.reshape(count, 16, -1) / 255
    difference = np.abs(turned[:, :1] - turned[:, 1:]).sum(2) / turned[:, :1].sum(2)
    assert difference.min() > 0.1


def test_no_pretraining_class_is_a_digit_or_looks_like_one():
    characters = [name for name in glyphs.class_names() if name not in glyphs.SHAPES]
    assert len(set(glyphs.class_names())) == len(glyphs.class_names()) == 135
    for character in characters:
        assert unicodedata.numeric(character, None) is None
        plain = unicodedata.normalize("NFKD", character)
        assert not any(part.isdigit() for part in plain)
        assert "DIGIT" not in unicodedata.name(character)
        assert "CIRCLED" not in unicodedata.name(character)
    listed = [*glyphs.LOOKS_LIKE_A_DIGIT.values(), glyphs.LOOKS_LIKE_A_SPRITE]
    assert not set(characters) & set("".join(listed).replace(" ", ""))


def test_no_pretraining_shape_is_a_shape_of_the_sprites():
    assert not {name.lower() for name in sprites.SHAPES} & {name.lower() for name in glyphs.SHAPES}


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_shipped_weights_are_those_of_the_recipe(name):
    recipe = backbones.read_recipe()
    entry = recipe["backbones"][name]
    content = (backbones.WEIGHTS / f"{name}.safetensors").read_bytes()
    state = safetensors.torch.load(content)
    assert hashlib.sha256(content).hexdigest() == entry["sha256"]
    assert len(content) == entry["bytes"]
    assert sum(value.numel() for value in state.values()) == entry["parameters"]
    assert entry["architecture"] == backbones.ARCHITECTURES[name]
    assert recipe["classes"] == list(glyphs.class_names())
    assert (tuple(recipe["mean"]), tuple(recipe["std"])) == (embedded.MEAN, embedded.STD)
    assert all(value.dtype == torch.float16 for value in state.values())


def test_the_weights_take_less_than_a_megabyte():
    assert sum(path.stat().st_size for path in backbones.WEIGHTS.iterdir()) < 1_000_000


@pytest.mark.parametrize(("name", "width"), [("glyph_base", 48), ("glyph_small", 32)])
def test_a_backbone_maps_images_to_the_features_of_its_class_token(name, width):
    model = embedded.create_backbone(name).eval()
    images = torch.zeros(2, embedded.CHANNELS, embedded.SIZE, embedded.SIZE)
    assert model(images).shape == (2, width)
    assert model.forward_features(images).shape == (2, 17, width)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    saved = safetensors.torch.load_file(backbones.WEIGHTS / f"{name}.safetensors")
    assert all((value == saved[key].float()).all() for key, value in model.state_dict().items())


def test_a_backbone_without_pretraining_has_other_weights():
    torch.manual_seed(0)
    random = embedded.create_backbone("glyph_small", pretrained=False)
    assert not torch.equal(random.pos_embed, embedded.create_backbone("glyph_small").pos_embed)


def test_damaged_or_missing_weights_are_refused_in_one_sentence(tmp_path):
    folder = tmp_path / "weights"
    shutil.copytree(backbones.WEIGHTS, folder)
    path = folder / "glyph_small.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"'glyph_small' are damaged: .* make the weights again"):
        backbones.create_backbone("glyph_small", folder=folder)
    path.unlink()
    with pytest.raises(BadInput, match="'glyph_small' are missing"):
        backbones.create_backbone("glyph_small", folder=folder)
    (folder / backbones.RECIPE).unlink()
    with pytest.raises(BadInput, match="cannot read the recipe"):
        backbones.create_backbone("glyph_base", folder=folder)


def test_an_unknown_backbone_is_refused_with_the_nearest_known_one():
    with pytest.raises(BadInput, match="did you mean 'glyph_base'"):
        embedded.create_backbone("glyph_bas")


def test_the_door_opens_without_torch_timm_sklearn_pil_or_matplotlib():
    heavy = {"torch", "timm", "sklearn", "PIL", "matplotlib"}
    code = f"import sys, idat_tune.embedded; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def probe(task):
    """Test accuracy of a linear classifier on the frozen class token of `glyph_base`."""
    from sklearn.linear_model import LogisticRegression

    model = embedded.create_backbone("glyph_base").eval()

    def features(split):
        pixels = torch.from_numpy(load(task, split)[0]).float() / 255
        with torch.no_grad():
            return model((pixels - embedded.MEAN[0]) / embedded.STD[0]).numpy()

    classifier = LogisticRegression(C=1.0, max_iter=1000).fit(features("trainval"), load(task, "trainval")[1])
    return classifier.score(features("test"), load(task, "test")[1])


@pytest.mark.parametrize(("task", "least"), [("digits", 0.93), ("sprites_loc", 0.15), ("sprites_ori", 0.15)])
def test_a_linear_probe_on_the_student_beats_chance_by_far(task, least):
    assert probe(task) > least


def test_pretraining_twice_gives_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "HELD_OUT", 256)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for attempt in ("first", "second"):
            entry = pretrain.pretrain("glyph_small", pretrain.Settings(steps=5), tmp_path / attempt)
    finally:
        torch.set_num_threads(threads)
    first, second = ((tmp_path / attempt / "glyph_small.safetensors").read_bytes() for attempt in ("first", "second"))
    assert first == second
    assert entry["sha256"] == hashlib.sha256(first).hexdigest()
    backbones.create_backbone("glyph_small", folder=tmp_path / "first")
