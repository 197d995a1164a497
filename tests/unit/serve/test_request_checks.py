"""The page's fences: which requests are answered, and which HTML gets out."""

from collections.abc import Mapping, Sequence
from typing import Final

import pytest

from qmpmem.serve import request_checks
from qmpmem.serve.html import Markup, join, tag
from qmpmem.serve.request_checks import HOSTS, CheckedRequest

US: Final = {"host": ("localhost:9178",)}
FORM: Final = {**US, "origin": ("http://localhost:9178",), "sec-fetch-site": ("same-origin",)}

Headers = Mapping[str, Sequence[str]]
CASES: Final[Mapping[str, tuple[str, str, Headers, int | None]]] = {
    "a page": ("GET", "/", US, None),
    "by address": ("GET", "/", {"host": ("127.0.0.1:9178",)}, None),
    "by IPv6": ("GET", "/", {"host": ("[::1]:9178",)}, None),
    "IPv6 without a port": ("GET", "/", {"host": ("[::1]",)}, None),
    "in capitals": ("GET", "/", {"host": ("LocalHost",)}, None),
    "only the head": ("HEAD", "/metrics", US, None),
    "typed": ("GET", "/", {**US, "sec-fetch-site": ("none",)}, None),
    "our own script": ("GET", "/events", {**US, "sec-fetch-site": ("same-origin",)}, None),
    "a link on another site": (
        "GET",
        "/guest/web1",
        {
            **US,
            "sec-fetch-site": ("cross-site",),
            "sec-fetch-mode": ("navigate",),
            "sec-fetch-dest": ("document",),
        },
        None,
    ),
    "a frame of another site": (
        "GET",
        "/",
        {
            **US,
            "sec-fetch-site": ("cross-site",),
            "sec-fetch-mode": ("navigate",),
            "sec-fetch-dest": ("iframe",),
        },
        403,
    ),
    "an image of another site": (
        "GET",
        "/metrics",
        {**US, "sec-fetch-site": ("cross-site",), "sec-fetch-mode": ("no-cors",)},
        403,
    ),
    "a script of a sister site": (
        "GET",
        "/",
        {**US, "sec-fetch-site": ("same-site",), "sec-fetch-mode": ("cors",)},
        403,
    ),
    "a name of another's that leads here": ("GET", "/", {"host": ("evil.example",)}, 421),
    "the same with our port": ("GET", "/", {"host": ("evil.example:9178",)}, 421),
    "a name that begins like ours": ("GET", "/", {"host": ("localhost.evil.example",)}, 421),
    "our name as a user": ("GET", "/", {"host": ("localhost@evil.example",)}, 421),
    "an odd port": ("GET", "/", {"host": ("localhost:9178x",)}, 421),
    "another address": ("GET", "/", {"host": ("192.0.2.1",)}, 421),
    "no name": ("GET", "/", {}, 400),
    "an empty name": ("GET", "/", {"host": ("",)}, 421),
    "two names": ("GET", "/", {"host": ("localhost", "localhost")}, 400),
    "an address": ("GET", "http://evil.example/", US, 400),
    "an address without a scheme": ("GET", "//evil.example/", US, 400),
    "a star": ("OPTIONS", "*", US, 400),
    "a form of ours": ("POST", "/hold", FORM, None),
    "a form, and a browser that tells less": (
        "POST",
        "/hold",
        {**US, "origin": ("http://localhost:9178",)},
        None,
    ),
    "a form behind a proxy": (
        "POST",
        "/hold",
        {**FORM, "origin": ("https://localhost:9178",)},
        None,
    ),
    "a form of another site": ("POST", "/hold", {**FORM, "origin": ("http://evil.example",)}, 403),
    "a form of another port": ("POST", "/hold", {**FORM, "origin": ("http://localhost:80",)}, 403),
    "a form without an origin": ("POST", "/hold", US, 403),
    "a form of a file": ("POST", "/hold", {**FORM, "origin": ("null",)}, 403),
    "an origin that is none": ("POST", "/hold", {**FORM, "origin": ("http://[",)}, 403),
    "a form that the browser knows for another's": (
        "POST",
        "/hold",
        {**FORM, "sec-fetch-site": ("cross-site",)},
        403,
    ),
    "a program with the token": ("POST", "/hold", {**US, "authorization": ("Bearer x",)}, None),
    "a browser with the token of another site": (
        "POST",
        "/hold",
        {**US, "authorization": ("Bearer x",), "sec-fetch-site": ("cross-site",)},
        403,
    ),
    "a password": ("POST", "/hold", {**US, "authorization": ("Basic eDp5",)}, 403),
    "both lengths": (
        "POST",
        "/hold",
        {**FORM, "transfer-encoding": ("chunked",), "content-length": ("0",)},
        400,
    ),
    "another method": ("DELETE", "/hold", US, 403),
}


@pytest.mark.parametrize("case", CASES)
def test_a_request_is_answered_or_refused(case: str) -> None:
    method, target, headers, code = CASES[case]
    found = request_checks.refusal(CheckedRequest(method=method, target=target, headers=headers))
    assert (None if found is None else found.code) == code, found


def test_a_name_behind_a_proxy_is_ours_where_that_was_said() -> None:
    asked = CheckedRequest(method="GET", target="/", headers={"host": ("vm.example",)})
    assert request_checks.refusal(asked) is not None
    assert request_checks.refusal(asked, HOSTS | {"vm.example"}) is None


def test_the_policy_lets_nothing_in_line_and_nothing_from_elsewhere() -> None:
    policy = request_checks.HEADERS["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "*" not in policy


HOSTILE: Final = """<script>"'&</script>"""


def test_text_is_escaped_and_markup_is_not() -> None:
    made = tag("p", HOSTILE, tag("b", "x"), title=HOSTILE)
    assert made == (
        '<p title="&lt;script&gt;&quot;&#x27;&amp;&lt;/script&gt;">'
        "&lt;script&gt;\"'&amp;&lt;/script&gt;<b>x</b></p>"
    )
    assert join(HOSTILE, None, Markup("<hr>")).endswith("&lt;/script&gt;<hr>")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (
            tag("input", type="text", disabled=True, hidden=False, value=None),
            '<input type="text" disabled>',
        ),
        (tag("td", class_="num", data_label="x y"), '<td class="num" data-label="x y"></td>'),
        (tag("p", 'a "b"'), '<p>a "b"</p>'),
        (tag("meter", value=0), '<meter value="0"></meter>'),
    ],
)
def test_an_element_is_written(made: str, expected: str) -> None:
    assert made == expected
