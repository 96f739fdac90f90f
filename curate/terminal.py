"""Text of others on a terminal: what would move the cursor or change the title is shown, not done."""

from __future__ import annotations


def visible(text: str, *, keep: str = "") -> str:
    r"""Text whose control characters (C0, DEL and C1) are written out, apart from those in `keep`.

    Example:
        >>> print(visible("a\x1b[2Jb\x9b\n"))
        a\x1b[2Jb\x9b\x0a
    """
    if text.isprintable():
        return text
    return "".join(f"\\x{ord(c):02x}" if c not in keep and _is_control(c) else c for c in text)


def _is_control(character: str) -> bool:
    return character < " " or "\x7f" <= character <= "\x9f"
