"""What becomes of one message of a client."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.proxy import requests
from qmpmem.proxy.allowed_commands import SHORT_ID, Permit, everything, queries
from qmpmem.proxy.requests import Answer, Command, encode, judge

TEXT = st.text(max_size=20)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


def answered(message: str | bytes, *, negotiated: bool = True, permit: Permit = everything) -> Any:  # noqa: ANN401 - JSON
    content = message if isinstance(message, bytes) else message.encode()
    judged = judge(content, negotiated=negotiated, permit=permit)
    assert isinstance(judged, Answer), judged
    return json.loads(judged.line)


def forwarded(message: str, *, permit: Permit = everything) -> Command:
    judged = judge(message.encode(), negotiated=True, permit=permit)
    assert isinstance(judged, Command), judged
    return judged


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("garbage\n", "not a JSON object"),
        ("[1]", "not a JSON object"),
        ("{]", "not a JSON object"),
        ('{"execute": "x", "id": NaN}', "not a JSON object"),
        ('{"execute": "x", "arguments": ' + '{"a":' * 40 + "1" + "}" * 41, "nested"),
        ('{"execute": "x", "arguments": {"a": ' + "9" * 30 + "}}", "digits"),
    ],
)
def test_what_is_no_message_is_answered_without_an_id(message: str, words: str) -> None:
    answer = answered(message)
    assert set(answer) == {"error"}
    assert answer["error"]["class"] == "GenericError"
    assert words in answer["error"]["desc"]


def test_bytes_that_are_no_text_are_answered() -> None:
    assert set(answered(b'{"execute": "\xff"}')) == {"error"}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"foo": 1}, "'foo' is unexpected"),
        ({"execute": "x", "control": {}}, "'control' is unexpected"),
        ({}, "lacks member 'execute'"),
        ({"execute": 1}, "must be a string"),
        ({"execute": "x", "arguments": []}, "must be an object"),
        ({"execute": "x", "arguments": None}, "must be an object"),
        ({"exec-oob": "migrate-pause"}, "out-of-band"),
        ({"execute": "getfd", "arguments": {"fdname": "a"}}, "descriptors"),
        ({"execute": "add-fd"}, "descriptors"),
        ({"execute": "x", "arguments": {"a": "\uffff"}}, "no character"),
        ({"execute": "x", "arguments": {"\ufdd0": 1}}, "no character"),
        ({"execute": "x", "arguments": {"a": ["\U0010fffe"]}}, "no character"),
    ],
)
def test_a_refusal_has_the_id_of_what_is_refused(message: dict[str, object], words: str) -> None:
    for identity in (1, "a", None, [1, {"b": 2.5}], 10**18):
        answer = answered(json.dumps(message | {"id": identity}))
        assert answer["id"] == identity
        assert words in answer["error"]["desc"]


def test_negotiation_comes_first_and_once() -> None:
    first = answered('{"execute": "query-status", "id": 1}', negotiated=False)
    assert first["error"]["class"] == "CommandNotFound"
    for arguments in ("", ', "arguments": {}', ', "arguments": {"enable": []}'):
        done = answered(
            '{"execute": "qmp_capabilities", "id": 7' + arguments + "}", negotiated=False
        )
        assert done == {"return": {}, "id": 7}
    again = answered('{"execute": "qmp_capabilities"}')
    assert again["error"]["class"] == "CommandNotFound"
    oob = '{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}'
    judged = judge(oob.encode(), negotiated=False, permit=everything)
    assert isinstance(judged, Answer)
    assert not judged.negotiates
    assert "error" in json.loads(judged.line)


@pytest.mark.parametrize(
    "command",
    [
        "quit",
        "system_reset",
        "stop",
        "migrate",
        "device_add",
        "human-monitor-command",
        "qom-set",
        "balloon",
        "query",
        "query_x",
        "query-STATUS",
        "query-status ",
        "query-status\nquit",
        "xquery-a",
        "query-",
        "x-query-jit",
        "Query-status",
        "query-é",
        "query-cpu-model-expansion",
        "query-firmware-log",
        "query-that-none-knows",
    ],
)
def test_read_only_lets_nothing_through_but_queries(command: str) -> None:
    answer = answered(json.dumps({"execute": command, "id": 5}), permit=queries)
    assert answer["id"] == 5
    assert "only reads" in answer["error"]["desc"]


def test_read_only_lets_queries_through() -> None:
    assert forwarded('{"execute": "query-status"}', permit=queries).name == "query-status"
    assert forwarded('{"execute": "query-cpus-fast"}', permit=queries).name == "query-cpus-fast"


def test_a_query_is_refused_for_its_arguments_in_qemus_words() -> None:
    message = '{"execute": "query-status", "arguments": {"a": [{}, {}]}, "id": 5}'
    answer = answered(message, permit=queries)
    assert answer["id"] == 5
    assert answer["error"] == {"class": "GenericError", "desc": "Parameter 'a' is unexpected"}
    assert forwarded(message).name == "query-status"


def test_an_id_is_short_where_a_session_may_not_do_everything() -> None:
    """Row F94."""
    for size, is_short in ((SHORT_ID - 2, True), (SHORT_ID - 1, False)):
        message = json.dumps({"execute": "query-status", "id": "x" * size})
        assert forwarded(message).identity == b'"%s"' % (b"x" * size)
        if is_short:
            assert forwarded(message, permit=queries).name == "query-status"
        else:
            answer = answered(message, permit=queries)
            assert answer["error"]["desc"] == f"QMP input: an id of over {SHORT_ID} bytes"
            assert "id" not in answer


@given(TEXT, st.none() | st.dictionaries(TEXT, VALUES, max_size=4), VALUES)
def test_what_qemu_gets_is_one_line_with_the_same_command(
    name: str, arguments: dict[str, object] | None, identity: object
) -> None:
    message: dict[str, object] = {"execute": name, "id": identity}
    if arguments is not None:
        message["arguments"] = arguments
    judged = judge(json.dumps(message, indent=1).encode(), negotiated=True, permit=everything)
    if isinstance(judged, Answer):
        answer = json.loads(judged.line)
        assert "error" in answer
        assert answer.get("id", identity) == identity
        return
    line = encode(judged, 7)
    assert line.count(b"\n") == 1
    sent = json.loads(line)
    assert sent.pop("id") == 7
    del message["id"]
    assert sent == message
    assert json.loads(requests.success(b"{}", judged.identity)) == {"return": {}, "id": identity}


def test_an_id_keeps_its_form_and_stays_in_one_line() -> None:
    command = forwarded('{"execute": "x", "id": [1.0,\r\n 2e3, "\\u00e9"]}')
    assert requests.success(b"{}", command.identity) == (
        b'{"return": {}, "id": [1.0,   2e3, "\\u00e9"]}\r\n'
    )
    assert requests.success(b"1", None) == b'{"return": 1}\r\n'


def test_of_two_members_of_one_name_one_is_sent() -> None:
    """QEMU does not parse an object with a key twice, and answers without an id."""
    command = forwarded('{"execute": "x", "arguments": {"a": 1, "a": 2}, "execute": "y"}')
    assert encode(command, 1).count(b'"a"') == 1
    assert encode(command, 1).count(b'"execute"') == 1
