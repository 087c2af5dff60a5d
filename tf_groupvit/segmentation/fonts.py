"""Text in, a font that has all its letters out, or a stand-in text where no font has them."""

from functools import cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Pillow's own font knows little beyond ASCII. These are looked for, by file name, where the system keeps its fonts.
SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf",
    "Arial Unicode.ttf",
    "Hiragino Sans GB.ttc",
    "STHeiti Light.ttc",
    "segoeui.ttf",
    "msyh.ttc",
    "malgun.ttf",
    "Nirmala.ttf",
)
_NO_LETTER = "\uffff"  # a noncharacter: every font draws its "missing" box for it
LONGEST = 32  # letters of a name that are drawn; the rest is an ellipsis


@cache
def _system_font(name: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@cache
def _default_font(size: int) -> Font:
    return ImageFont.load_default(size)


@cache
def _has_letter(font: Font, letter: str) -> bool:
    return letter.isspace() or bytes(font.getmask(letter)) != bytes(font.getmask(_NO_LETTER))


def font_for(text: str, size: int) -> Font | None:
    """A font of ``size`` pixels with a glyph for every letter, Pillow's own first; None where there is no such font."""
    candidates = (_default_font(size), *(_system_font(name, size) for name in SYSTEM_FONTS))
    return next((font for font in candidates if font and all(_has_letter(font, letter) for letter in set(text))), None)


def legible(name: str, number: int, size: int) -> tuple[str, Font]:
    """What to draw for class ``number`` and with which font.

    The name on one line, control characters as blanks, cut at 32 letters; ``#number``, the number of the class in
    the label image, where no font at hand has all the letters.
    """
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())
    text = line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."
    font = font_for(text, size)
    return (text, font) if text and font else (f"#{number}", _default_font(size))
