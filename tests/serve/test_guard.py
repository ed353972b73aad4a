"""The server refuses foreign requests, and adds headers to its answers."""

import pytest
from fastapi.testclient import TestClient

from scav_model.serve.app import make_app
from scav_model.serve.engine import Engine
from scav_model.serve.guard import HEADERS, Guard, checked_token, is_loopback, names_of_this_machine
from tests.serve.conftest import client_of

TOKEN = "a-token-of-24-characters"


@pytest.fixture
def locked(engine: Engine) -> TestClient:
    return client_of(engine, TOKEN, follow_redirects=False)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Cookie": "scav_token=wrong"},
        {"Cookie": 'scav_token="'},
        {"Cookie": "scav_token=é"},
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/index", "/api/media?clip=bell", "/static/app.js", "/?token=wrong"])
def test_without_the_token_nothing_is_answered(locked: TestClient, path: str, headers: dict[str, str]) -> None:
    answer = locked.get(path, headers={name: value.encode() for name, value in headers.items()})
    assert answer.status_code == 401
    assert "Bearer" in answer.headers["www-authenticate"]


def test_the_token_opens_as_a_bearer_and_as_a_cookie(locked: TestClient) -> None:
    assert locked.get("/api/index", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    answer = locked.get("/", params={"token": TOKEN})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert locked.get("/api/index").status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "192.168.1.7", "", "[::1", "localhost@evil"]
)
def test_another_hosts_name_is_refused(client: TestClient, host: str) -> None:
    """A site whose name leads here (DNS rebinding) sends its own name."""
    assert client.get("/api/index", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST"])
def test_this_machines_names_pass(client: TestClient, host: str) -> None:
    assert client.get("/api/index", headers={"Host": host}).status_code == 200


def test_a_server_of_all_addresses_answers_addresses_and_not_names(engine: Engine) -> None:
    app = Guard(make_app(engine), names_of_this_machine("0.0.0.0"), addresses=True, token=TOKEN)
    client = TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"})
    assert client.get("/api/index", headers={"Host": "192.168.1.7:8000"}).status_code == 200
    assert client.get("/api/index", headers={"Host": "evil.example"}).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://[::1"},
    ],
)
def test_other_sites_are_refused(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post("/api/uploads", content=b"x", headers=headers).status_code == 403
    assert client.get("/api/media", params={"clip": "bell"}, headers=headers).status_code == 403


def test_the_page_itself_passes(client: TestClient) -> None:
    headers = {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}
    assert client.get("/api/index", headers=headers).status_code == 200
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2f..%2fapp.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/..%5capp.py",
        "/static/app.js%00.css",
        "/api/media?clip=../../../../etc/passwd",
        "/api/media?clip=/etc/passwd",
        "/api/media?clip=%2e%2e%2fbell.mp4",
        "/api/media?clip=bell.mp4",
        "/api/film?upload=../../etc/passwd",
        "/api/poster?clip=bell%00",
    ],
)
def test_no_path_of_a_request_reaches_the_file_system(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert b"root:" not in answer.content
    assert b"import" not in answer.content


@pytest.mark.parametrize(
    "path", ["/", "/api", "/static/app.js", "/api/index", "/api/media?clip=bell", "/nothing", "/api/search"]
)
def test_every_answer_has_the_security_headers(client: TestClient, path: str) -> None:
    answer = client.get(path)
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    assert "cache-control" in answer.headers


def test_a_refusal_has_them_too(client: TestClient) -> None:
    assert client.get("/", headers={"Host": "evil.example"}).headers["X-Content-Type-Options"] == "nosniff"


def test_the_policy_lets_no_inline_script_or_style_run(client: TestClient) -> None:
    policy = client.get("/").headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    for page in ("/", "/api"):
        text = client.get(page).text
        assert "style=" not in text
        assert "<style" not in text
        assert text.count("<script") == text.count('<script type="module" src="/static/')


def test_only_hosts_that_others_reach_want_a_token() -> None:
    assert checked_token("127.0.0.1", None) is None
    assert checked_token("::1", None) is None
    assert len(checked_token("0.0.0.0", None) or "") >= 32
    assert checked_token("0.0.0.0", None) != checked_token("0.0.0.0", None)
    assert checked_token("127.0.0.1", TOKEN) == TOKEN
    for short in ("short", "with spaces in it, and long", "ümlaute-sind-nicht-möglich"):
        with pytest.raises(ValueError, match="expected a token of at least 16"):
            checked_token("0.0.0.0", short)


def test_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.7", "example.org")))
