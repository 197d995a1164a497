"""The manual page: every command's help as man(7) source. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from qmpmem.records import Record

FILES: Final = (
    ("/etc/qmpmem/qmpmem.toml", "The agent's configuration; `qmpmem config show` explains it."),
    ("/etc/default/qmpmem", "The launcher's settings, as KEY=VALUE."),
    ("/run/qmpmem/guests", "Root's guests; a user's are in $XDG_RUNTIME_DIR/qmpmem."),
    ("/var/lib/qmpmem/journal.db", "What the agent decided, and why."),
)

AS_IT_IS: Final = "\b\n"
"""Click's mark at the begin of a paragraph whose lines stay as they are."""


class Help(Record, frozen=True):
    """The help of one command."""

    path: str
    """How it is called: ``qmpmem ksm on``."""
    synopsis: str
    """What follows that: ``[OPTIONS] NAME``."""
    text: str
    """Paragraphs, with an empty line between them."""
    parameters: tuple[tuple[str, str], ...] = ()
    """Each argument and option, and what it is for."""
    examples: tuple[str, ...] = ()


def manual_page(
    program: Help, commands: Iterable[Help], codes: Sequence[tuple[str, str]], version: str
) -> Iterator[str]:
    """Yield the lines of a manual page, section 1.

    Args:
        program: the help of the program itself; its text's first paragraph is the page's NAME.
        commands: those of its commands, in the order in which they are to be read.
        codes: each exit code, and its meaning.
        version: the version of the program.
    """
    yield f'.TH {program.path.upper()} 1 "" "{program.path} {_escape(version)}"'
    yield ".SH NAME"
    summary, _, rest = program.text.partition("\n\n")
    yield f"{program.path} \\- {_line(summary)}"
    yield ".SH SYNOPSIS"
    yield from _called(program)
    if rest:
        yield ".SH DESCRIPTION"
        yield from _paragraphs(rest)
    yield ".SH OPTIONS"
    yield from _terms(program.parameters)
    yield ".SH COMMANDS"
    for each in commands:
        yield from _command(each)
    yield ".SH EXIT STATUS"
    yield from _terms(codes)
    yield ".SH FILES"
    yield from _terms(FILES)
    yield ".SH EXAMPLES"
    yield from _examples(program.examples)
    yield ".SH SEE ALSO"
    yield ".BR qemu-system-x86_64 (1)"
    yield ".PP"
    yield _line("`qmpmem help` lists the chapters of the manual, and shows each.")


def _command(command: Help) -> Iterator[str]:
    yield f".SS {_line(command.path)}"
    yield from _called(command)
    yield from _paragraphs(command.text)
    yield from _terms(command.parameters)
    if command.examples:
        yield ".PP"
        yield from _examples(command.examples)


def _called(command: Help) -> Iterator[str]:
    yield f"\\fB{_line(command.path)}\\fR {_line(command.synopsis)}".rstrip()


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        yield ".PP"
        if paragraph.startswith(AS_IT_IS):
            yield from _examples(paragraph.removeprefix(AS_IT_IS).splitlines())
        else:
            yield _line(paragraph)


def _terms(terms: Iterable[tuple[str, str]]) -> Iterator[str]:
    for term, meaning in terms:
        yield ".TP"
        yield f"\\fB{_line(term)}\\fR"
        yield _line(meaning) or "\\&"


def _examples(examples: Iterable[str]) -> Iterator[str]:
    yield ".nf"
    yield from map(_line, examples)
    yield ".fi"


def _line(text: str) -> str:
    """Return a paragraph as one line, which begins no request and has no hyphen for a minus."""
    line = _escape(" ".join(text.split()))
    return f"\\&{line}" if line.startswith((".", "'")) else line


def _escape(text: str) -> str:
    # groff_char(7): an escaped - is the minus of options, ` and ' else become typographic quotes.
    marks = {"\\": "\\e", "-": "\\-", "`": "\\(ga", "'": "\\(aq"}
    return "".join(marks.get(each, each) for each in text)
