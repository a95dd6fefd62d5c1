"""Ids of samples and patients as text that compares equal wherever it comes from."""

import unicodedata


def composed(text: str) -> str:
    r"""Text with composed letters (Unicode NFC).

    macOS decomposes the names of files: `ë` becomes `e` and a diaeresis, which looks the same and compares unequal.

    >>> composed("Zoe\u0308") == "Zo\u00eb"
    True
    """
    return unicodedata.normalize("NFC", text)
