"""HTML that no text can break out of: what this module did not make is escaped. Pure."""

from html import escape
from typing import Final

VOID: Final = frozenset({"meta", "link", "input", "br"})
"""Elements of HTML that have no end (HTML: "Void elements")."""

Value = str | int | float | bool | None


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: str | None, **attributes: Value) -> Markup:
    """Write an element.

    Args:
        name: of the element.
        children: what is in it; text is escaped, None left out.
        attributes: ``class_`` is written class, ``data_key`` data-key. False and None are left out,
            True stands alone.
    """
    head = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Markup(f"<{name}{head}>")
    return Markup(f"<{name}{head}>{join(*children)}</{name}>")


def join(*children: str | None) -> Markup:
    """Put pieces one after the other."""
    return Markup("".join(_child(each) for each in children if each is not None))


def _child(child: str) -> str:
    return child if isinstance(child, Markup) else escape(child, quote=False)


def _attribute(key: str, value: Value) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
