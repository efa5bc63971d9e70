"""Text from files and their names on its way to a terminal."""

from __future__ import annotations


def escaped(text: str, *, keep: str = "") -> str:
    r"""Write what is not printable, such as the start of a terminal's commands, as ``\x1b``.

    Args:
        text: any text, also with bytes that Python could not decode.
        keep: characters that stay, such as line ends.
    """
    return "".join(c if c.isprintable() or c in keep else _as_digits(c) for c in text)


def _as_digits(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
