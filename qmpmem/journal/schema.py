"""Which tables of a file are ours, by the text that they were made with.

Theory of operation:
    SQLite keeps the text of each table, index, view and trigger (SQLite: The Schema Table). A table
    with that text of ours has our columns, and nothing that is computed. A file may hold others
    besides, as of a later version: those are neither read nor written.
"""

import re
import sqlite3
from collections.abc import Mapping
from typing import Final

from qmpmem.journal.database import Database

OBJECTS: Final = 100
"""Most tables and indexes of a file; ours has twelve."""
_STATEMENT: Final = re.compile(r"create (?P<kind>table|index) (?P<name>\w+)(?: on (?P<table>\w+))?")

Texts = Mapping[str, set[tuple[str, str]]]
"""What belongs to each table: names, and texts."""


def is_empty(database: Database) -> bool:
    """Tell whether nothing was ever made in a file.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    return database.first(tuple[int], "select 1 from sqlite_master limit 1") is None


def expect_ours(database: Database, needed: str, others: str) -> frozenset[str]:
    """Expect what has a name of ours to be what this program, or an earlier version, made.

    Args:
        database: the file.
        needed: the statements that make the tables that have to be there.
        others: the statements that make those that may be missing, or tables of another version.

    Returns:
        The tables that are ours.

    Raises:
        sqlite3.Error: it cannot be read; or a needed table is missing or not ours; or a view, a
            trigger, or what else is no table, has a name of ours or belongs to a table of ours.
    """
    expected = {**_texts(needed), **_texts(others)}
    found: dict[str, set[tuple[str, str]]] = {}
    for kind, name, table, text in _objects(database):
        if table in expected or name in expected:
            if kind not in ("table", "index"):
                raise sqlite3.DatabaseError(f"damaged: the {kind} {name[:40]!r} is not ours")
            # An index without a text is part of its table's own.
            if text is not None:
                found.setdefault(table, set()).add((name, _plain(text)))
    ours = frozenset(table for table, texts in expected.items() if texts == found.get(table))
    for table in _texts(needed):
        if table not in ours:
            raise sqlite3.DatabaseError(f"damaged: the table {table!r} is not ours")
    return ours


def _objects(database: Database) -> list[tuple[str, str, str, str | None]]:
    """Return what is in a file: kind, name, table, text."""
    question = "select type, name, tbl_name, sql from sqlite_master limit ?"
    found = list(database.rows(tuple[str, str, str, str | None], question, OBJECTS + 1))
    if len(found) > OBJECTS:
        raise sqlite3.DatabaseError(f"damaged: more than {OBJECTS} tables and indexes")
    return [(kind, name.lower(), table.lower(), text) for kind, name, table, text in found]


def _texts(statements: str) -> Texts:
    found: dict[str, set[tuple[str, str]]] = {}
    for statement in statements.split(";"):
        text = _plain(statement)
        if (seen := _STATEMENT.match(text)) is not None:
            found.setdefault(seen["table"] or seen["name"], set()).add((seen["name"], text))
    return found


def _plain(text: str) -> str:
    """Return a statement without what SQLite itself changes of it: it writes CREATE TABLE."""
    return " ".join(text.lower().split())
