"""Check the host, origin and token of each request, and add security headers to each answer."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "scav_token"
MIN_TOKEN = 16  # characters
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
}


def is_loopback(host: str) -> bool:
    """Return whether a host's name or address is of this machine alone."""
    return host in LOOPBACK or (_address(host) or ipaddress.ip_address("0.0.0.0")).is_loopback


def checked_token(host: str, token: str | None) -> str | None:
    """Return the token that requests need: the one that was named, a new one for a host that others reach, or none.

    Raises:
        ValueError: the token is short, or has characters that a header cannot hold.
    """
    if token is None:
        return None if is_loopback(host) else secrets.token_urlsafe(24)
    if len(token) < MIN_TOKEN or not all(char.isalnum() or char in "-._~" for char in token) or not token.isascii():
        raise ValueError(
            f"expected a token of at least {MIN_TOKEN} letters, digits or -._~, got {len(token)} characters; "
            "leave --token out, and one is made"
        )
    return token


def names_of_this_machine(host: str) -> set[str]:
    """Return the names by which a request may call a server that listens at `host`."""
    if is_loopback(host):
        return {*LOOPBACK, host}
    return {*LOOPBACK, host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}


class Guard:
    """Refuses requests under another host's name, from other sites and without the token; adds headers to all answers.

    A page of another site can have its own name lead to this machine (DNS rebinding), but it cannot change the Host
    header, which has that name.

    Args:
        names: of this machine.
        addresses: whether any address may stand for a name, as where the server listens at all of them.
        token: None: none is needed.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str], addresses: bool = False, token: str | None = None) -> None:
        self.app, self.names, self.addresses, self.token = app, frozenset(names), addresses, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        answer = self._refusal(Headers(scope=scope), scope)
        await (answer or self.app)(scope, receive, send_with_headers)

    def _refusal(self, headers: Headers, scope: Scope) -> Response | None:
        """Return the answer to a request that is not passed on; None passes it on."""
        host = _host(headers.get("host", ""))
        if host not in self.names and not (self.addresses and _address(host)):
            return _error(421, f"expected the name of this machine as host, got {host!r}; open the address as printed")
        origin = headers.get("origin")
        if headers.get("sec-fetch-site") == "cross-site" and scope["path"] != "/":
            return _error(403, "another site asks; open the page itself")
        if origin is not None and origin.partition("://")[2] != headers.get("host"):
            return _error(403, f"the site {origin} asks; open the page itself")
        if self.token is None:
            return None
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and asked and self._is_token(asked):
            opened = RedirectResponse("/", status_code=303)
            opened.set_cookie(COOKIE, asked, httponly=True, samesite="strict", path="/")
            return opened
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer if scheme.lower() == "bearer" else _cookie(headers.get("cookie", ""))
        if self._is_token(given):
            return None
        answer = _error(401, "expected the token as a cookie or as Authorization: Bearer; open the address as printed")
        answer.headers["WWW-Authenticate"] = "Bearer"
        return answer

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode("utf-8", "replace"), (self.token or "").encode())


def _error(status: int, text: str) -> Response:
    return JSONResponse({"detail": text}, status)


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _host(header: str) -> str:
    """Return the host of a Host header, without its port and the brackets of an address of version 6."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
