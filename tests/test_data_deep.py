"""Images of more than 8 bits: one range per task, taken from train, wherever its images are decoded."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from conftest import glyphs, noise
from PIL import Image
from vtab import encode

import idat_tune
from idat_tune import data, export, run, tasks
from idat_tune.data import deep, examined, pixels
from idat_tune.data.deep import Extremes, range_of
from idat_tune.data.parquet import Encoded
from idat_tune.errors import BadInput


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A store of this test's own; tasks that it makes known are forgotten after it."""
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    monkeypatch.setattr(tasks, "_BY_KEY", dict(tasks._BY_KEY))
    monkeypatch.setenv("IDAT_TUNE_DATA", str(tmp_path / "store"))
    return tmp_path / "store"


def ramp(label, i, most):
    """A picture of class `label` whose values are integers in 0..most, both of which it has."""
    values = np.random.default_rng([label, i]).integers(0, most + 1, (12, 12))
    values[:6] = values[:6] // (1 + label)
    values[0, 0], values[0, 1] = 0, most
    return values


def folders(root, save, count=12):
    for label, name in enumerate(("a", "b")):
        (root / name).mkdir(parents=True)
        for i in range(count):
            save(label, i, root / name / f"{i}")
    return root


def tiff(values, change=lambda values: values, kind=np.float32):
    """The bytes of a TIFF of one band."""
    return encode(Image.fromarray(change(values).astype(kind)), "TIFF")


def colour_png(values):
    """A PNG in colours of 16 bits, which Pillow cannot write."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, bands = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[bands], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def bands_tiff(values, order="<", extra=None, photometric=2):
    """An uncompressed TIFF of any number of bands; values (H, W, bands) of uint8 or uint16."""
    height, width, bands = values.shape
    body = values.astype(values.dtype.newbyteorder(order)).tobytes()
    bits = struct.pack(f"{order}{bands}H", *[8 * values.dtype.itemsize] * bands)
    place = 8 + len(body)
    tags = [(256, width), (257, height), (258, None), (259, 1), (262, photometric), (273, 8), (277, bands)]
    tags += [(278, height), (279, len(body)), (284, 1)] + ([] if extra is None else [(338, extra)])
    entries = [
        struct.pack(f"{order}HHII", tag, 3, bands, place)
        if value is None
        # a LONG for all else: readers take either
        else struct.pack(f"{order}HHII", tag, 4, 1, value)
        for tag, value in tags
    ]
    table = struct.pack(f"{order}H", len(tags)) + b"".join(entries) + bytes(4)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", place + len(bits))
    return head + body + bits + table


# What the range is


@pytest.mark.parametrize(
    ("least", "most", "whole", "expected"),
    [
        (0, 255, True, (0, 255)),  # 8 bits in 16
        (0, 1023, True, (0, 1023)),
        (3, 4080, True, (0, 4095)),
        (0, 65535, True, (0, 65535)),
        (0, 2**31 - 1, True, (0, 2**32 - 1)),
        (0, 1, True, (0, 1)),  # a mask
        (0, 0.8, False, (0, 1)),
        (-0.9, 0.8, False, (-1, 1)),
    ],
)
def test_where_a_convention_fits_it_is_the_range(least, most, whole, expected):
    assert range_of([Extremes(least, most, least, most, whole)]) == expected


def test_all_else_ends_where_the_usual_values_do():
    hounsfield = [Extremes(-1024, 3071, -1000, 1000, True), Extremes(-3000, 900, -900, 800, True)]
    assert range_of(hounsfield) == (-1000, 1000)
    assert range_of([]) is None
    low, high = range_of([Extremes(-7, -7, -7, -7, True)])
    assert low < high


def test_dead_pixels_and_what_is_not_finite_do_not_stretch_the_range():
    values = np.linspace(-500, 500, 10_000).reshape(100, 100)
    values[0, 0], values[5, 5], values[6, 6] = 1e9, np.nan, np.inf
    found = deep.extremes(deep.values(Image.fromarray(values.astype(np.float32))))
    assert found.most == pytest.approx(1e9)
    assert found.usual_most == pytest.approx(500, rel=0.01)


# Reading


@pytest.mark.parametrize("kind", ["png", "little", "big"])
@pytest.mark.parametrize("bands", [3, 4])
def test_colours_of_16_bits_keep_them_all(kind, bands):
    values = np.random.default_rng(0).integers(0, 4096, (5, 7, bands)).astype(np.uint16)
    order = {"little": "<", "big": ">"}.get(kind)
    encoded = colour_png(values) if order is None else bands_tiff(values, order, 2 if bands == 4 else None)
    assert np.array_equal(deep.values(pixels.read(encoded)), values[..., :3])
    lazy = Image.open(io.BytesIO(encoded))  # as somebody may give it to a student
    expected = np.rint(values[..., :3] / 4095 * 255).astype(np.uint8)
    if bands == 3:
        assert np.array_equal(np.asarray(pixels.flatten(lazy, (0, 4095))), expected)


def test_the_transparent_part_of_16_bit_colours_shows_white():
    clear = np.zeros((4, 4, 4), np.uint16)
    assert np.asarray(pixels.flatten(pixels.read(colour_png(clear)), (0, 255))).min() == 255


def test_values_are_scaled_to_the_range_and_cut_off_beyond():
    values = np.array([[-2000, -1000, 0, 1000, 9000, np.nan]], np.float32)
    flat = pixels.flatten(pixels.read(tiff(values)), (-1000, 1000))
    assert np.asarray(flat).tolist() == [[0, 0, 128, 255, 255, 0]]


def test_images_that_differ_in_their_lower_bits_only_are_different_and_equal_ones_alike():
    dark = [ramp(0, i, 200) for i in range(2)]  # as 16 bits, all of it black
    first, second = (examined.examine(Encoded("x", tiff(values, kind=np.uint16), 0)) for values in dark)
    assert first.pixels_digest != second.pixels_digest
    same = examined.examine(Encoded("x", encode(Image.fromarray(dark[0].astype(np.uint16)), "PNG"), 0))
    assert same.bytes_digest != first.bytes_digest
    assert same.pixels_digest == first.pixels_digest


# A task


@pytest.mark.parametrize(
    ("save", "expected"),
    [
        (lambda v: tiff(v * 16, kind=np.uint16), (0, 4095)),
        (lambda v: tiff(v, kind=np.int32), (0, 255)),
        (lambda v: tiff(v / 127.5 - 1), (-1, 1)),
        (lambda v: tiff(v * 8 - 1000), (-1000, 1040)),
        (lambda v: bands_tiff(np.repeat(v[..., None], 3, 2).astype(np.uint16)), (0, 255)),
    ],
    ids=["12 bits", "int32", "-1 to 1", "hounsfield", "16-bit colours"],
)
def test_the_network_sees_the_same_whatever_the_values_are_stored_as(tmp_path, save, expected):
    def plain(label, i, path):
        Image.fromarray(ramp(label, i, 255).astype(np.uint8)).save(path.with_suffix(".png"))

    def stored(label, i, path):
        path.with_suffix(".tif").write_bytes(save(ramp(label, i, 255)))

    data.import_(folders(tmp_path / "plain", plain), ["plain"])
    (one,) = data.import_(folders(tmp_path / "stored", stored), ["stored"])
    assert data.intensity("stored") == pytest.approx(expected, abs=10)
    assert any("24 images have more than 8 bits; " in sentence for sentence in one.report.findings)
    for split in ("train", "val", "test"):
        seen, same = (data.load(task, split, 12, 1).pixels.astype(int) for task in ("stored", "plain"))
        assert np.abs(seen - same).max() <= 2
    assert data.intensity("plain") is None
    assert data.verify("stored").ok


def test_the_range_is_that_of_train_and_not_of_test(tmp_path):
    def save(most):
        return lambda label, i, path: path.with_suffix(".tif").write_bytes(
            tiff(ramp(label, i + most, most), kind=np.uint16)
        )

    folders(tmp_path / "birds/train", save(1000))
    folders(tmp_path / "birds/test", save(4000), 4)
    data.import_(tmp_path / "birds", ["birds"])
    assert data.intensity("birds") == (0, 1023)
    assert data.load("birds", "test", 12, 1).pixels.max() == 255


def test_fractions_beside_counts_have_no_one_range(tmp_path):
    def save(label, i, path):
        kind, most = (np.uint16, 1) if i % 2 else (np.float32, 255)
        path.with_suffix(".tif").write_bytes(tiff(ramp(label, i, 255) / most, kind=kind))

    with pytest.raises(BadInput, match=r"has fractions of 1 and .* has counts; a task has one range"):
        data.import_(folders(tmp_path / "birds", save), ["birds"])


def test_a_store_from_before_ranges_were_recorded_is_read_as_it_was(tmp_path, home):
    def save(label, i, path):
        path.with_suffix(".tif").write_bytes(tiff(ramp(label, i, 65535), kind=np.uint16))

    data.import_(folders(tmp_path / "birds", save), ["birds"])
    manifest = json.loads((home / "birds/task.json").read_text())
    del manifest["intensity"]
    (home / "birds/task.json").write_text(json.dumps(manifest))
    assert data.intensity("birds") is None
    upper = [ramp(label, i, 65535).max() // 256 for label in range(2) for i in range(12)]
    assert data.load("birds", "train", 12, 1).pixels.max() == max(upper)


# A student


def test_a_student_takes_the_range_of_its_task_with_it(tmp_path, home):
    def save(label, i, path):
        path.with_suffix(".tif").write_bytes(tiff(ramp(label, i, 4095), kind=np.uint16))

    data.import_(folders(tmp_path / "birds", save), ["birds"])
    data.register_own()
    training = run.run(glyphs(task="birds", teacher="none"), noise(classes=2))
    export.save(tmp_path / "best", training.config, training.student.trained_state(), {})
    home.rename(tmp_path / "elsewhere")
    student = idat_tune.load(tmp_path / "best")
    assert student.intensity == (0, 4095)
    values = ramp(0, 0, 4095)
    expected = data.decode(Image.fromarray(np.rint(values / 4095 * 255).astype(np.uint8)), 32, 1)
    seen = student.transform(pixels.read(tiff(values, kind=np.uint16))).numpy()
    assert np.abs(seen.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("text", ["[", "{}", '{"intensity": [1]}', '{"intensity": [2, 1]}', '{"intensity": "x"}'])
def test_a_damaged_range_is_refused_and_an_older_student_has_none(tmp_path, text):
    training = run.run(glyphs(teacher="none"), noise())
    export.save(tmp_path / "best", training.config, training.student.trained_state(), {})
    (tmp_path / "best/pixels.json").write_text(text)
    with pytest.raises(BadInput, match=r"pixels\.json"):
        idat_tune.load(tmp_path / "best")
    (tmp_path / "best/pixels.json").unlink()
    assert idat_tune.load(tmp_path / "best").intensity is None


# Bands


def test_of_four_bands_that_do_not_say_what_the_fourth_is_three_count():
    values = np.zeros((4, 4, 4), np.uint8)
    values[..., :3] = (10, 20, 30)  # the fourth, 0, would be taken for transparency
    for encoded in (bands_tiff(values), bands_tiff(values, extra=0), bands_tiff(values.astype(np.uint16))):
        assert pixels.remark(encoded) == pixels.BANDS
    assert data.decode(pixels.read(bands_tiff(values)), 1)[:, 0, 0].tolist() == [10, 20, 30]
    transparent = bands_tiff(values, extra=2)
    assert pixels.remark(transparent) == ""
    assert data.decode(pixels.read(transparent), 1).min() == 255


@pytest.mark.parametrize("bands", [5, 13])
def test_a_tiff_of_other_bands_says_how_many_and_what_to_do(bands):
    encoded = bands_tiff(np.zeros((4, 4, bands), np.uint16), photometric=1)
    with pytest.raises(BadInput, match=rf"^s2\.tif is a TIFF of {bands} bands of 16 bits, .*choosing three bands"):
        pixels.read(encoded, "s2.tif")


def test_an_image_alone_is_read_by_the_fewest_bits_that_hold_it():
    def grey(most, dtype=np.uint16):
        values = np.linspace(0, most, 64).astype(dtype).reshape(8, 8)
        return pixels.decode(Image.fromarray(values), 8, 1)

    for most in (255, 1023, 4095, 65535):
        assert (grey(most).min(), grey(most).max()) == (0, 255)
    assert grey(3000).max() == 3000 * 255 // 4095
    assert grey(200, np.int32).max() == 200
