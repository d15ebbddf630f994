"""One webhook on the wire: to an address that was looked up and checked just before, and to no other.

Names may lead elsewhere the next time they are looked up. So the connection goes to the very address that was
checked, while the certificate is still held to the name.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Self, TypeAlias

import httpx

from notifier.domain.webhooks import may_be_reached, what_is_wrong

TIMEOUT = 10.0  #: seconds for all of it: name, connection, answer
CONNECT = 3.0  #: seconds of these for one address, so that another one of the name may still have its turn
LINGER = 1.0  #: seconds for what follows the status, which nobody looks at
MOST_READ = 16 * 1024  #: bytes of that, so that the connection can be used again
PORTS = {"https": 443, "http": 80}

# A look-up cannot be broken off, and a resolver that is not answered keeps its thread for half a minute. In the loop's
# own few threads that would hold up whatever else of this process waits for one, such as the sweep.
_LOOK_UPS = ThreadPoolExecutor(32, thread_name_prefix="webhook-names")

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]


async def look_up(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system's resolver gives them; it also reads `2130706433` and `0x7f.1`."""
    asking = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_LOOK_UPS, asking)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it: the status, or a word for why there is none."""

    code: str

    @property
    def is_taken(self) -> bool:
        """2xx, and nothing else: a redirect is not followed, since it may lead anywhere."""
        return len(self.code) == 3 and self.code.startswith("2")

    @property
    def is_gone(self) -> bool:
        """410: the receiver wants no more."""
        return self.code == "410"


class Post:
    """Posts to one endpoint, over connections that no other endpoint shares."""

    def __init__(
        self, url: str, *, is_production: bool, resolve: Resolve = look_up, verify: ssl.SSLContext | bool = True
    ) -> None:
        self._url = _read(url) if what_is_wrong(url, is_production=is_production) is None else None
        self._is_production = is_production
        self._resolve = resolve
        # No proxy from the environment: it would look names up itself. No cookies: they grow with each answer.
        self._http = httpx.AsyncClient(
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            verify=verify,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(TIMEOUT, connect=CONNECT),
        )

    async def __call__(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send it once."""
        if self._url is None:
            return Answer("refused_url")
        try:
            async with asyncio.timeout(TIMEOUT):
                addresses = await self._addresses(self._url)
                if not addresses:
                    return Answer("refused_address")
                for address in addresses[:-1]:
                    with suppress(httpx.ConnectError, httpx.ConnectTimeout):  # nothing has left
                        return await self._send(self._url, address, headers, body)
                return await self._send(self._url, addresses[-1], headers, body)
        except (TimeoutError, httpx.TimeoutException):
            return Answer("timeout")
        except (OSError, UnicodeError):  # of the look-up; what cannot be a name at all is the latter
            return Answer("name")
        except httpx.ConnectError as error:
            return Answer("certificate" if "CERTIFICATE" in str(error).upper() else "connect")
        except httpx.HTTPError:
            return Answer("broken")

    async def _addresses(self, url: httpx.URL) -> Sequence[str]:
        """Where to connect to, one after the other; nowhere when the name leads, also, to where it must not."""
        found = await self._resolve(_host(url), url.port or PORTS[url.scheme])
        allowed = all(may_be_reached(one, is_production=self._is_production) for one in found)
        return found if allowed else []

    async def _send(self, url: httpx.URL, address: str, headers: Mapping[str, str], body: bytes) -> Answer:
        request = self._http.build_request(
            "POST",
            url.copy_with(host=address),
            content=body,
            headers={
                **headers,
                "Host": url.netloc.decode("ascii"),
                "Content-Type": "application/json",
                "User-Agent": "notifier-dispatch",
            },
            extensions={"sni_hostname": _host(url)},
        )
        response = await self._http.send(request, stream=True)
        try:
            async with asyncio.timeout(LINGER):
                read = 0
                async for piece in response.aiter_raw():
                    if (read := read + len(piece)) > MOST_READ:
                        break
        except (httpx.HTTPError, TimeoutError):
            pass  # the status has been said
        finally:
            await response.aclose()
        return Answer(str(response.status_code))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None
    ) -> None:
        await self._http.aclose()


def _read(url: str) -> httpx.URL | None:
    """None for what httpx does not take, though it looked like a URL."""
    try:
        return httpx.URL(url)
    except httpx.InvalidURL:
        return None


def _host(url: httpx.URL) -> str:
    return url.raw_host.decode("ascii").strip("[]")
