"""What the embedded backbones saw before: letters, symbols and plain shapes, and never a digit."""

import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

MASTER = 64  # side of a drawn master, pixels
INK = 48  # the longer side of the drawing within its master

LATIN = "ACEFHKMNPRTUVWXYadfhmnrtĦ"
GREEK = "ΔΞΠΣΨαηλμπω"
CYRILLIC = "ДЖИЙЦШЩЯЂѪѬѦЏ"
SYMBOLS = "#*+=<~:÷¥€«…∀∪⊎⊃√≈≋≠≤≡⊢⋈⊞⋔∴∷⌂⌘╬▚▤▥▦▩☀☁☂☎☕☘☠☢☷♔♕♖♗♘♣♦♫♨♻⚒⚓⚔⚖⚙⚛⚜✂✈✉✌✓✠✡✦✳✿❄❖"

# A backbone that has seen digits would give away the task `digits`. So no digit is drawn, and nothing
# that a reader could take for one, upright or slightly turned, thin or bold, printed or handwritten;
# neither are superscripts, subscripts, fractions, circled numbers, dice and other characters with a numeric value.
LOOKS_LIKE_A_DIGIT = {
    "0": "O o Q D e Ω Ο ο О о Θ θ ϑ Φ φ Ф ф σ Ѳ © ® @ ° ¤ ⊕ ⊗ ⊙ ⌀ ☮ ☯ ☸ ☺ ☹ ∅ ø Ø",
    "1": "I i l j | ! / \\ ( ) [ ] Ι ι І і † ‡ ∫ ¦ J ⊥",
    "2": "Z z ? Ζ ζ £ ♉ ʑ ∂",
    "3": "З з Ʒ ʒ Э э Є є ε ξ ∃ } { В в",
    "4": "Ч ч y У у γ ∠ ♃ ⚡",
    "5": "S s $ § Ѕ ѕ Б ς",
    "6": "b G б δ Ь ь Ъ ъ Ы ы Þ þ ♂",
    "7": "Г г > ¬ Ɂ ⌐ ∇",
    "8": "B & 8 Β β ß ∞ ♋ % ‰ ȣ ☃ ♙",
    "9": "g q p ρ р ϙ Ϙ ¶ ♀ ☥ ք",
    "10": "Ю ю Œ № ℀",
}
# These would give away the sprites: shapes that they are made of, or signs whose class is a direction.
LOOKS_LIKE_A_SPRITE = "L Γ Г ♠ ♥ ❤ ⚑ ⚐ ➤ ▲ ▶ ▼ ◀ ← → ↑ ↓ ↔ ⌊ ⌈ ▙ ▛ ▜ ▟"

UPRIGHT = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSansMono-Bold",
    "DejaVuSerif", "DejaVuSerif-Bold", "STIXGeneral", "STIXGeneralBol",
)  # fmt: skip
# Only Latin capitals keep their form in italics: slanted `a`, `и` and `д` turn into other letters.
ITALIC = (
    "DejaVuSans-Oblique",
    "DejaVuSans-BoldOblique",
    "DejaVuSerif-Italic",
    "STIXGeneralItalic",
    "STIXGeneralBolIta",
)
TEX = ("cmr10", "cmb10", "cmss10", "cmtt10")  # these follow ASCII for letters only

SHAPES = (
    "disc", "half disc", "crescent", "cut disc", "square", "triangle",
    "trapezoid", "parallelogram", "star", "hourglass", "stairs", "comb",
)  # fmt: skip
Points = list[tuple[float, float]]
VARIANTS = 8  # drawings of each shape, from lean to stout


def class_names() -> tuple[str, ...]:
    """The pretraining classes in the order of their labels: characters, then names of shapes."""
    return (*LATIN, *GREEK, *CYRILLIC, *SYMBOLS, *SHAPES)


def atlas() -> tuple[np.ndarray, np.ndarray]:
    """Every drawing of every class in three thicknesses.

    Returns:
        masters uint8 (N, MASTER, MASTER), white on black, and labels int64 (N,), sorted by label.
    """
    masters: list[np.ndarray] = []
    labels: list[int] = []
    for label, name in enumerate(class_names()):
        for drawing in _drawings(name):
            masters += _thicknesses(drawing)
            labels += [label] * 3
    return np.stack(masters), np.array(labels, dtype=np.int64)


def _drawings(name: str) -> Iterator[Image.Image]:
    if name in SHAPES:
        yield from (_fitted(_shape(name, variant / (VARIANTS - 1))) for variant in range(VARIANTS))
        return
    fonts = (*UPRIGHT, *ITALIC, *TEX) if name in LATIN and name.isupper() else UPRIGHT
    for font in fonts:
        if ord(name) in _characters(font):
            yield _fitted(_letter(font, name))


@cache
def _font_path(font: str) -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"


@cache
def _characters(font: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(_font_path(font))).get_charmap())


def _letter(font: str, character: str) -> Image.Image:
    side = 4 * MASTER
    image = Image.new("L", (side, side))
    pen = ImageFont.truetype(str(_font_path(font)), size=side // 2)
    ImageDraw.Draw(image).text((side // 2, side // 2), character, fill=255, font=pen, anchor="mm")
    return image


def _fitted(image: Image.Image) -> Image.Image:
    """The ink of a drawing, scaled so that its longer side is INK and centred on a master."""
    ink = image.crop(image.getbbox())
    scale = INK / max(ink.size)
    width, height = (max(1, round(side * scale)) for side in ink.size)
    master = Image.new("L", (MASTER, MASTER))
    master.paste(ink.resize((width, height), Image.Resampling.BOX), ((MASTER - width) // 2, (MASTER - height) // 2))
    return master


def _thicknesses(drawing: Image.Image) -> list[np.ndarray]:
    thin = Image.blend(drawing, drawing.filter(ImageFilter.MinFilter(3)), 0.6)
    thick = drawing.filter(ImageFilter.MaxFilter(3)).filter(ImageFilter.MaxFilter(3))
    return [np.asarray(image, dtype=np.uint8) for image in (thin, drawing, thick)]


# Shapes are drawn on a square of 200 units; `stout` runs from 0 (lean) to 1 and sets their proportions.


def _shape(name: str, stout: float) -> Image.Image:
    if name in _POLYGONS:
        return _polygon(_POLYGONS[name](stout))
    return _ROUND[name](stout)


def _polygon(points: Points) -> Image.Image:
    image = Image.new("L", (200, 200))
    ImageDraw.Draw(image).polygon(points, fill=255)
    return image


def _ellipse(left: float, top: float, right: float, bottom: float) -> Image.Image:
    image = Image.new("L", (200, 200))
    ImageDraw.Draw(image).ellipse((left, top, right, bottom), fill=255)
    return image


def _cut_disc(stout: float) -> Image.Image:
    image = Image.new("L", (200, 200))
    mouth = 60 - 30 * stout  # half the angle that is missing, degrees
    ImageDraw.Draw(image).pieslice((20, 20, 180, 180), mouth, 360 - mouth, fill=255)
    return image


def _crescent(stout: float) -> Image.Image:
    shift = 35 + 45 * stout
    return ImageChops.subtract(_ellipse(20, 20, 180, 180), _ellipse(20 + shift, 25, 170 + shift, 175))


def _half_disc(stout: float) -> Image.Image:
    return ImageChops.subtract(_ellipse(20, 20, 180, 180), _polygon(_box(0, 85 + 35 * stout, 200, 200)))


_ROUND: dict[str, Callable[[float], Image.Image]] = {
    "disc": lambda stout: _ellipse(20, 45 - 25 * stout, 180, 155 + 25 * stout),
    "half disc": _half_disc,
    "crescent": _crescent,
    "cut disc": _cut_disc,
}


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _star(stout: float) -> Points:
    radii = (95, 30 + 25 * stout)
    turns = [(radii[i % 2], math.pi * i / 5) for i in range(10)]
    return [(100 + radius * math.sin(turn), 100 - radius * math.cos(turn)) for radius, turn in turns]


def _stairs(stout: float) -> Points:
    low = 150 - 50 * stout
    return [(10, low + 40), (10, low), (70, low), (70, low - 50), (130, low - 50), (130, low - 100), (190, low - 100),
            (190, low + 40)]  # fmt: skip


def _comb(stout: float) -> Points:
    tooth = 14 + 16 * stout
    points = [(10.0, 30.0), (190.0, 30.0)]
    for centre in (175.0, 100.0, 25.0):
        right, left = min(190.0, centre + tooth / 2), max(10.0, centre - tooth / 2)
        points += [(right, 60.0), (right, 170.0), (left, 170.0), (left, 60.0)]
    return points


_POLYGONS: dict[str, Callable[[float], Points]] = {
    "square": lambda stout: _box(20, 50 - 30 * stout, 180, 150 + 30 * stout),
    "triangle": lambda stout: [(100, 180 - 100 * (0.6 + stout)), (190, 180), (10, 180)],
    "trapezoid": lambda stout: [(50, 100 - 50 * stout), (150, 100 - 50 * stout), (190, 170), (10, 170)],
    "parallelogram": lambda stout: [(70, 90 - 50 * stout), (190, 90 - 50 * stout), (130, 160), (10, 160)],
    "star": _star,
    "hourglass": lambda stout: [
        (40, 10),
        (160, 10),
        (104 + 15 * stout, 100),
        (160, 190),
        (40, 190),
        (96 - 15 * stout, 100),
    ],
    "stairs": _stairs,
    "comb": _comb,
}
