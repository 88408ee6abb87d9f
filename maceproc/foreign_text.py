"""Other people's text, made safe for a terminal.

Names of processes, devices and namespaces, file names, what a ping printed, and every string of a
sidecar come from others. Printed as they are, they could move the cursor, change colours, set the
window's title, or reverse the order of a line.
"""

from __future__ import annotations

import unicodedata

# Unicode general categories (Unicode 15.0, chapter 4.5) of characters that are shown escaped:
# control (Cc), format (Cf: bidi and zero-width controls, soft hyphen), surrogate (Cs: bytes of a
# file name that are not UTF-8), line and paragraph separator (Zl, Zp).
HIDDEN_CATEGORIES = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
# Letters and spaces by category that are drawn as nothing, or that change the character before:
# Hangul and Khmer fillers, Mongolian and other variation selectors, the braille blank.
_BLANK = frozenset(
    map(
        chr,
        (
            *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F),
            *(0x2800, 0x3164, 0xFFA0, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)),
        ),
    )
)


def clean(text: object, keep: str = "") -> str:
    r"""Return text as one line that a terminal shows as it is.

    Every control, format, separator and surrogate character becomes its escape (``\x1b``,
    ``\u202e``, ``\n``); those in `keep` stay. A byte that is not UTF-8, as Python holds it in a
    file name (surrogateescape), becomes ``\xNN``. Text that is clean comes back unchanged.
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if character in keep or not is_hidden(character) else _escaped(character)
        for character in text
    )


def clean_lines(text: object) -> str:
    r"""Return text of several lines with each of them cleaned; ``\n`` alone ends a line."""
    return clean(text, keep="\n")


FORMULA_STARTS = ("=", "+", "-", "@")  # of a cell that a spreadsheet takes for a formula


def clean_cell(text: object) -> str:
    """Return text as `clean` does, and with an apostrophe before it where it begins like a formula.

    So a spreadsheet shows it and does not compute it (OWASP, CSV injection).
    """
    cell = clean(text)
    return f"'{cell}" if cell.startswith(FORMULA_STARTS) else cell


def is_hidden(character: str) -> bool:
    """Tell whether a character is drawn as nothing, or acts on the text around it."""
    return unicodedata.category(character) in HIDDEN_CATEGORIES or character in _BLANK


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte, PEP 383
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
