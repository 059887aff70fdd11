"""What does not belong in stays out, and whatever goes out has the headers that keep it in."""

from __future__ import annotations

import re
from collections.abc import Callable
from http.cookies import SimpleCookie
from typing import Any

import pytest

from unstuck.view.guard import Door, is_any, is_loopback

NAME = "20250304-102231-train"


@pytest.fixture
def served(grow: Callable[..., Any], serve: Callable[..., Any]) -> Any:
    run = grow()
    run.grow(30)
    run.end()
    return serve()


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "::1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)
    assert not Door.of(host, 1).token
    assert Door.of(host, 1, token=True).token


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "gpu7", "localhost.evil.org", "", "128.0.0.1"])
def test_elsewhere_a_token_is_needed(host: str) -> None:
    assert not is_loopback(host)
    assert len(Door.of(host, 1).token) >= 32
    assert Door.of(host, 1).token != Door.of(host, 1).token


def test_a_door_knows_its_names_at_any_port() -> None:
    local = Door.of("127.0.0.1", 8765)
    assert all(
        map(local.knows, ["127.0.0.1:8765", "localhost:9000", "LocalHost", "[::1]:8765"])
    )  # through a tunnel too
    strangers = [
        "evil.org",
        "127.0.0.1.evil.org",
        "localhost@evil.org",
        "",
        "10.0.0.1:8765",
        "[::1",
        "evil.org:8765",
        "127.0.0.1:80:80/x",
    ]
    assert not any(map(local.knows, strangers))
    named = Door.of("192.168.1.2", 8765, ["GPU7"])
    assert named.knows("gpu7:8765") and named.knows("192.168.1.2") and not named.knows("localhost")
    everywhere = Door.of("0.0.0.0", 8765, ["gpu7"])
    assert is_any("0.0.0.0") and all(map(everywhere.knows, ["gpu7", "10.1.2.3:8765", "localhost", "[fe80::1]:8765"]))
    assert not everywhere.knows("rebound.evil.org")


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "/runs/..", "/runs/../..", "/runs/%2e%2e", "/runs/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/runs/..%5c..", "/../../etc/passwd", "//etc/passwd",
        "/runs//etc/passwd", "/runs/%00", f"/runs/{NAME}%00", f"/runs/{NAME}/record.sqlite", f"/runs/{NAME}%2frecord.sqlite",
        f"/runs/{NAME}/", f"/runs/./{NAME}", "/runs/", "/record.sqlite", "/runs/%ff%fe", "/runs/" + "a" * 5000,
        "/changes?run=..", "/changes?run=/etc", f"/compare?a={NAME}&b=../{NAME}", f"/compare?a=%2e&b={NAME}", "/changes?run=a&run=b&run=c",
    ],
)  # fmt: skip
def test_no_path_leads_out(served: Any, path: str) -> None:
    status, _, text = served.ask(path)
    assert status == 404
    assert "root:x" not in text and "<script" not in text


def test_what_is_not_there_is_said_on_a_page_with_a_way_back_and_to_scripts_in_plain_words(served: Any) -> None:
    for path, code, says in (("/nonsense", 404, "There is no such page."), ("/runs/%3Cimg%20src=x%3E", 404, "&lt;img src=x&gt;"),
                             (f"/compare?a={NAME}", 400, "Which runs? Tick two of them in the list.")):  # fmt: skip
        status, headers, text = served.ask(path)
        assert (status, headers["content-type"]) == (code, "text/html; charset=utf-8")
        assert says in text and 'href="/"' in text and "<img" not in text
        assert (
            "script-src ;" in headers["content-security-policy"]
            and "frame-ancestors 'none'" in headers["content-security-policy"]
        )
        for part in ("part=main", "x=1&part=main"):
            status, headers, text = served.ask(f"{path}{'&' if '?' in path else '?'}{part}")
            assert status == code and headers["content-type"].startswith("text/plain") and "<html" not in text


@pytest.mark.slow
@pytest.mark.parametrize("host", ["evil.org", "127.0.0.1.evil.org:80", "", "localhost.evil.org"])
def test_other_names_are_refused(served: Any, host: str) -> None:
    assert served.ask("/", host=host)[0] in (400, 403)
    assert served.ask("/changes", host=host)[0] in (400, 403)


@pytest.mark.slow
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.org"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}, {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://127.0.0.1"},
    ],
)  # fmt: skip
def test_other_sites_are_refused(served: Any, headers: dict[str, str]) -> None:
    for path in ("/", f"/runs/{NAME}", "/changes"):
        status, _, text = served.ask(path, headers=headers)
        assert status == 403
        assert NAME not in text


def test_its_own_pages_may_ask(served: Any) -> None:
    own = {"Origin": served.url, "Sec-Fetch-Site": "same-origin"}
    assert served.ask("/", headers=own)[0] == 200
    assert served.ask("/", headers={"Sec-Fetch-Site": "none"})[0] == 200


@pytest.mark.slow
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_there_is_nothing_to_change(served: Any, method: str) -> None:
    status, headers, text = served.ask(f"/runs/{NAME}", method)
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert NAME not in text


def test_head_gives_headers_alone(served: Any) -> None:
    for path in ("/", f"/runs/{NAME}", "/changes"):
        status, _, text = served.ask(path, "HEAD")
        assert (status, text) == (200, "")


def test_every_answer_has_the_headers(served: Any) -> None:
    answers = [
        served.ask("/"), served.ask(f"/runs/{NAME}"), served.ask("/nothing"), served.ask("/", "POST"), served.ask("/", host="evil.org"),
        served.ask("/compare"), served.ask("/runs/nothing"), served.ask(f"/runs/{NAME}?part=main"),
    ]  # fmt: skip
    assert [status for status, _, _ in answers] == [200, 200, 404, 405, 403, 400, 404, 200]
    for _, headers, _ in answers:
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "frame-ancestors 'none'" in policy
        assert (
            "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0] and "unsafe-eval" not in policy
        )
        assert "server" not in headers and "access-control-allow-origin" not in headers


def test_the_token_is_asked_for_once(grow: Callable[..., Any], serve: Callable[..., Any]) -> None:
    run = grow()
    run.grow(3)
    served = serve(token=True)
    for path in ("/", "/changes", f"/runs/{NAME}", "/?token=", "/?token=wrong", "/?token=" + "%C3%A9" * 32, "/nothing"):
        status, _, text = served.ask(path)
        assert status == 403
        assert NAME not in text and served.token not in text
    status, headers, _ = served.ask(f"/runs/{NAME}?token={served.token}&part=main")
    assert (status, headers["location"]) == (303, f"/runs/{NAME}?part=main")
    cookie = headers["set-cookie"]
    assert re.search("httponly", cookie, re.I) and re.search("samesite=strict", cookie, re.I)
    [(name, morsel)] = SimpleCookie(cookie).items()
    assert str(served.port) in name  # cookies of a host are shared by its ports
    assert served.ask("/", headers={"Cookie": f"{name}={morsel.value}"})[0] == 200
    assert served.ask("/", headers={"Cookie": f"{name}={morsel.value[:-1]}"})[0] == 403
    assert served.ask("/", headers={"Cookie": f"other={morsel.value}"})[0] == 403
    assert served.ask("/", headers={"Cookie": f"{name}={morsel.value}", "Origin": "http://evil.org"})[0] == 403


def test_the_way_in_leads_nowhere_else(serve: Callable[..., Any]) -> None:
    served = serve(token=True)
    for path in ("//evil.org/", "/\\evil.org", "/%2fevil.org", "/%5cevil.org"):
        status, headers, _ = served.ask(f"{path}?token={served.token}")
        assert status == 303
        assert re.match(r"/[^/\\]", headers["location"])
