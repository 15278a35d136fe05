"""How images become pixels, whatever they come as."""

import io
import re
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from vtab import encode, picture

from idat_tune import data
from idat_tune.data import pixels
from idat_tune.errors import BadInput


@pytest.fixture
def image():
    return picture(np.random.default_rng(0), label=3, classes=10, pixels=40)


def reopened(image, kind, **options):
    return pixels.read(encode(image, kind, **options))


def test_pixels_are_those_of_pil_bicubic_without_keeping_the_aspect(image):
    expected = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.array_equal(data.decode(image, 16), expected)


@pytest.mark.parametrize("name", pixels.INTERPOLATIONS)
def test_interpolations_go_by_the_names_that_pil_gives_them(image, name):
    expected = np.asarray(image.resize((16, 16), Image.Resampling[name.upper()])).transpose(2, 0, 1)
    assert np.array_equal(data.decode(image, 16, 3, name), expected)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_give_the_same_pixels(image, kind):
    assert np.array_equal(data.decode(reopened(image, kind), 16), data.decode(image, 16))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_give_nearly_the_same_pixels(image, kind):
    difference = data.decode(reopened(image, kind, quality=95), 16).astype(int) - data.decode(image, 16)
    assert np.abs(difference).mean() < 8


def test_grey_images_are_tiled_to_three_channels(image):
    grey = image.convert("L")
    tiled = data.decode(grey, 16)
    assert tiled.shape == (3, 16, 16)
    assert np.array_equal(tiled, data.decode(grey.convert("RGB"), 16))


def test_one_channel_is_the_luma(image):
    assert np.array_equal(data.decode(image, 16, 1)[0], np.asarray(image.convert("L").resize((16, 16), 3)))


def test_sixteen_bits_keep_their_upper_eight():
    grey = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024
    image = reopened(Image.fromarray(grey), "PNG")
    assert np.array_equal(data.decode(image, 8, 1)[0], grey // 256)


def test_floats_are_read_as_0_to_1_or_as_0_to_255():
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    unit, bytes_ = (data.decode(reopened(Image.fromarray(ramp * top), "TIFF"), 8, 1) for top in (1, 255))
    assert np.array_equal(unit, bytes_)
    assert unit.max() == 255


def test_palettes_become_their_colours():
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    assert data.decode(reopened(palette, "PNG"), 2)[:, 0, 0].tolist() == [10, 200, 30]


def test_cmyk_becomes_rgb():
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    r, g, b = data.decode(reopened(red, "JPEG", quality=100), 2)[:, 0, 0].tolist()
    assert r > 200 > 60 > max(g, b)


def test_black_and_white_becomes_0_and_255():
    assert data.decode(reopened(Image.new("1", (4, 4), 1), "PNG"), 2).min() == 255


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_shows_white(mode):
    clear = Image.new("RGBA", (4, 4), (200, 0, 0, 0)).convert(mode)
    assert data.decode(reopened(clear, "PNG"), 2).min() == 255


def test_a_transparent_palette_colour_shows_white():
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30])
    assert data.decode(reopened(palette, "PNG", transparency=0), 2).min() == 255


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(kind, orientation):
    upright = Image.new("L", (32, 16))
    upright.paste(255, (16, 0, 32, 8))  # the upper right quarter
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL's numbers of transpositions
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    seen = data.decode(reopened(stored.convert("RGB"), kind, exif=exif), 2, 1)[0]
    assert (seen > 128).tolist() == [[False, True], [False, False]]


def test_an_image_of_one_pixel_fills_the_square():
    assert (data.decode(reopened(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG"), 8).reshape(3, -1).T == [1, 2, 3]).all()


def test_a_very_wide_image_is_squeezed():
    assert data.decode(Image.new("RGB", (20000, 2), "white"), 8).min() == 255


def test_of_an_animation_the_first_frame_counts():
    buffer = io.BytesIO()
    first, second = (Image.new("L", (4, 4), value) for value in (255, 0))
    first.save(buffer, "GIF", save_all=True, append_images=[second])
    assert data.decode(pixels.read(buffer.getvalue()), 2).min() == 255


def bomb(side):
    """A PNG that says it is `side` pixels wide and high, without being so."""
    small = bytearray(encode(Image.new("1", (1, 1)), "PNG"))
    small[16:24] = side.to_bytes(4, "big") * 2
    small[29:33] = zlib.crc32(small[12:29]).to_bytes(4, "big")
    return bytes(small)


@pytest.mark.parametrize("side", [9_000, 12_000, 30_000])
def test_decompression_bombs_are_refused_before_they_are_decoded(side):
    pixels._known.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow's own words about it are for programmers
        with pytest.raises(BadInput, match=r"bomb\.png has .*more than the 64,000,000"):
            pixels.read(bomb(side), "bomb.png")


def test_a_truncated_image_is_named(image):
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        encoded = encode(image, kind)
        with pytest.raises(BadInput, match=r"a/b\.jpg"):
            pixels.read(encoded[: len(encoded) * 2 // 3], "a/b.jpg")


# What it is and the way out are said of anything that is often saved under the name of an image.
NO_IMAGES = [
    (b"", "is empty; fetch it again"),
    (b"hello", "is not a readable image (known: JPEG, PNG"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
    (b"\xef\xbb\xbf\n <!DOCTYPE HTML><html>404", "is a web page"),
    (b"<html><body>", "is a web page"),
    (b"<svg xmlns=", "is an SVG drawing; save it as PNG"),
    (b'{"error": 404}', "is JSON and no image"),
    (b"%PDF-1.7", "is a PDF document; save it as PNG"),
    (b"%!PS-Adobe-3.0 EPSF-3.0", "is PostScript; save it as PNG"),
    (b"PK\x03\x04rest", "is a zip archive; unpack it"),
    (b"\x93NUMPY\x01", "is a NumPy array"),
    (bytes(128) + b"DICM", "is a DICOM file; save its pixels as PNG or TIFF of 16 bits"),
    (b"\0\0\0\x18ftypmp42", "is a film"),
    (bytes(4096), "holds nothing but zeros"),
]


@pytest.mark.parametrize(("encoded", "what"), NO_IMAGES)
def test_what_is_no_image_is_called_what_it_is(encoded, what):
    with pytest.raises(BadInput, match=re.escape(f"x.jpg {what}")):
        pixels.read(encoded, "x.jpg")


def test_no_format_that_runs_another_program_is_read(image, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("PostScript was run"))
    with pytest.raises(BadInput, match=r"x\.jpg is PostScript"):
        pixels.read(encode(image, "EPS"), "x.jpg")
    for kind in ("PDF", "PSD", "ICO", "TGA"):
        assert kind not in pixels.FORMATS


def test_every_format_has_names_and_every_name_a_format():
    Image.init()
    known = {Image.EXTENSION.get(suffix, "HEIF") for suffix in pixels.SUFFIXES} - {"MPO"}
    assert known == {*pixels.FORMATS, pixels.HEIC}
    assert all(Path(f"x{suffix}").suffix == suffix == suffix.lower() for suffix in pixels.SUFFIXES)


@pytest.mark.parametrize(("kind", "options"), [("AVIF", {}), ("JPEG2000", {}), ("MPO", {"save_all": True})])
def test_formats_of_cameras_browsers_and_phones_are_read(image, kind, options):
    difference = data.decode(reopened(image, kind, **options), 16).astype(int) - data.decode(image, 16)
    assert np.abs(difference).mean() < 15


def heic(image):
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer)
    return buffer.getvalue()


def test_heic_is_read_with_the_extra(image):
    difference = data.decode(pixels.read(heic(image)), 16).astype(int) - data.decode(image, 16)
    assert np.abs(difference).mean() < 15


def test_heic_without_the_extra_names_it(image, monkeypatch):
    encoded = b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic"
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        BadInput, match=re.escape('a.jpg is a HEIC photo, which wants an extra: pip install "idat-tune')
    ):
        pixels.read(encoded, "a.jpg")


def test_a_generic_brand_that_is_avif_wants_no_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(BadInput, match="is not a readable image"):
        pixels.read(b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "a.avif")


@pytest.mark.parametrize("compressed", [True, False])
def test_a_png_with_more_text_than_pillow_takes_is_read(image, compressed):
    text = PngImagePlugin.PngInfo()
    text.add_text("xmp", "x" * 3_000_000, zip=compressed)
    encoded = encode(image, "PNG", pnginfo=text)
    assert np.array_equal(data.decode(pixels.read(encoded), 16), data.decode(image, 16))


def test_lab_and_ycbcr_become_rgb(image):
    from PIL import ImageCms

    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    for stored in (ImageCms.applyTransform(image, to_lab), image.convert("YCbCr")):
        difference = data.decode(reopened(stored, "TIFF"), 16).astype(int) - data.decode(image, 16)
        assert np.abs(difference).mean() < 4


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_further_frames_are_remarked(image, kind):
    assert pixels.remark(encode(image, kind)) == ""
    several = encode(image, kind, save_all=True, append_images=[image.rotate(9), image.rotate(20)])
    assert pixels.remark(several) == pixels.FRAMES


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_random_bytes_in_an_image_never_raise_anything_else(image):
    rng = np.random.default_rng(0)
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 99)
    kinds = [(image, kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000")]
    for stored, kind in [*kinds, (deep, "TIFF"), (deep, "PNG"), (image.convert("LAB"), "TIFF")]:
        encoded = bytearray(encode(stored, kind))
        for _ in range(40):
            broken = encoded.copy()
            for place in rng.integers(0, len(broken), 4):
                broken[place] = rng.integers(256)
            try:
                data.decode(pixels.read(bytes(broken), "x"), 8)
                pixels.remark(bytes(broken))
            except BadInput:
                continue


@pytest.mark.parametrize(
    ("shape", "what"),
    [((0, 3, "bicubic"), "size 0"), ((8, 4, "bicubic"), "not 4"), ((8, 3, "cubic"), "unknown interpolation 'cubic'")],
)
def test_impossible_shapes_are_refused(image, shape, what):
    with pytest.raises(BadInput, match=what):
        data.decode(image, *shape)
