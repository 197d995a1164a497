"""A readable word out of any name: umlauts and accents are spelt out, other letters become ``-``.

Rules of this file:
    Pure. `qmpmem.model.names` does the same; tests/unit/model/test_names.py holds the two together.
    Loaded only for names that need it.
"""

LETTERS = """
    a àáâãåāăą  ae äæ  c çćĉċč  d ďđð  e èéêëēĕėęě  g ĝğġģ  h ĥħ  i ìíîïĩīĭįı  j ĵ  k ķ  l ĺļľŀł
    n ñńņňŋ  o òóôõøōŏő  oe öœ  r ŕŗř  s śŝşšș  ss ß  t ţťŧț  th þ  u ùúûũūŭůűų  ue ü  w ŵ  y ýÿŷ
    z źżž
    """.split()  # noqa: SIM905 - a table
BASES = {
    letter: base
    for base, letters in zip(LETTERS[::2], LETTERS[1::2], strict=True)
    for letter in letters
}
"""How small letters are written without their accents."""


def make_word(name: str, limit: int = 48) -> str:
    """Make a word of letters, digits, ``.``, ``_`` and ``-`` of any name.

    Returns:
        At most `limit` characters, the first a letter or a digit; "" where most of the name is in
        letters that have no counterpart, as in another alphabet.
    """
    text = "".join(map(_spell, name))
    word = text.strip("-._")
    while "--" in word:
        word = word.replace("--", "-")
    lost = sum(1 for letter in name if letter.isalnum() and not _spell(letter).strip("-"))
    if lost > len(name) // 2:
        return ""
    return word[:limit].rstrip("-._")


def _spell(letter: str) -> str:
    if letter.isascii():
        return letter if letter.isalnum() or letter in "._-" else "-"
    if "\u0300" <= letter <= "\u036f":  # an accent of the letter before
        return ""
    base = BASES.get(letter.lower(), "-")
    return base.capitalize() if letter.isupper() else base
