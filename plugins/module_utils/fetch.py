# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A file of a web server as a stream, got by this host: each hop is checked, and what breaks off is taken up again.

A name is resolved once, its addresses are checked, and the connection goes to one of just these.
Sources: RFC 9110 (Range, If-Range, redirects), RFC 6890 (special addresses).
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from .errors import StorageError
from .streams import CHECKSUMS

MOST_REDIRECTS = 10
MOST_RESUMES = 5  # one after the other without a byte in between
REDIRECTS = (301, 302, 303, 307, 308)
PORTS = {"http": 80, "https": 443}
LARGEST_SUMS = 4 << 20
LEAST_RATE = 1024  # bytes a second
NAT64 = ipaddress.ip_network("64:ff9b::/96")
FAULTS = (OSError, http.client.HTTPException)  # of a connection; ssl.SSLError and timeouts are OSErrors


class Restart(Exception):
    """The stream broke off and can't be continued where it was: begin anew."""


@dataclass(frozen=True)
class Rules:
    """What a download may do. networks are those that it may reach although they are not public."""

    verify: bool = True
    ca_path: str | None = None
    networks: tuple[str, ...] = ()
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    timeout: float = 30.0
    size: int = 64 << 40
    slow: float = 300.0  # seconds after which a server must have given LEAST_RATE in each of them
    pause: float = 1.0  # before a broken connection is taken up again, doubled each time


def options(params: dict[str, Any], thing: str) -> Rules:
    """The rules that a module's options make."""
    for one in params.get("url_networks") or ():
        network(thing, one)
    return Rules(
        verify=params.get("validate_certs") is not False,
        ca_path=params.get("ca_path"),
        networks=tuple(params.get("url_networks") or ()),
        username=params.get("url_username"),
        password=params.get("url_password"),
        timeout=float(params.get("url_timeout") or 30),
    )


SPEC: dict[str, Any] = {
    "url_username": {"type": "str"},
    "url_password": {"type": "str", "no_log": True},
    "url_networks": {"type": "list", "elements": "str"},
    "url_timeout": {"type": "int", "default": 30},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
}


def network(thing: str, text: str) -> Any:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise StorageError(
            thing=thing,
            code="bad_value",
            reason=f"url_networks can't contain {text!r}",
            way_out="give networks such as 10.1.0.0/16",
        ) from error


def shown(url: str) -> str:
    """An address without what may be secret in it."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "the address"
    return f"{parts.scheme}://{host}{port}{parts.path}"


def check_url(thing: str, url: str) -> SplitResult:
    """The parts of an address that may be asked at all."""
    way_out = "give an address such as https://example.org/images/debian.qcow2"
    if re.search(r"[\x00-\x20\x7f]", url):
        raise refused(thing, "bad_url", "the address has spaces or control characters in it", way_out)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise refused(thing, "bad_url", f"the address can't be read ({error})", way_out) from error
    if parts.scheme not in PORTS:
        raise refused(thing, "bad_url", f"{parts.scheme or 'no scheme'} is neither http nor https", way_out)
    if not parts.hostname or port == 0:
        raise refused(thing, "bad_url", "the address names no server", way_out)
    if "@" in parts.netloc:
        raise refused(
            thing,
            "credentials_in_url",
            f"{shown(url)} carries a user name or password, and addresses are shown and logged",
            "give url_username and url_password",
        )
    if not f"{parts.path}?{parts.query}".isascii():
        raise refused(thing, "bad_url", "the address has letters in it that are not ASCII", "write them as %C3%A9")
    return parts


def server(parts: SplitResult) -> tuple[str, str | None, int]:
    """Whom an address names: what is a secret of one is none of another's."""
    return parts.scheme, parts.hostname, parts.port or PORTS[parts.scheme]


def refused(thing: str, code: str, reason: str, way_out: str) -> StorageError:
    return StorageError(thing=thing, code=code, reason=reason, way_out=way_out)


# Addresses ----------------------------------------------------------------------------------------------------------


def embedded(address: Any) -> list[Any]:
    """An address and those that it stands for: IPv4 in IPv6, by mapping, 6to4, Teredo and NAT64."""
    found = [address]
    if address.version == 6:
        found += [one for one in (address.ipv4_mapped, address.sixtofour) if one is not None]
        found += list(address.teredo or ())
        if address in NAT64:
            found.append(ipaddress.ip_address(int(address) & 0xFFFFFFFF))
    return found


def is_public(address: Any) -> bool:
    """Whether anybody's server may have it: not this host, not its network, not a cloud's metadata service."""
    if address.version == 6 and (address.ipv4_mapped is not None or address in NAT64):
        return is_public(embedded(address)[1])  # what they are in themselves depends on the Python
    return all(one.is_global and not one.is_multicast and not one.is_reserved for one in embedded(address))


def addresses(thing: str, host: str, port: int, rules: Rules) -> list[tuple[Any, ...]]:
    """What the name of a server resolves to, all of it allowed."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        way_out = "look at the name and at this host's resolver"
        raise refused(thing, "unreachable", f"{host} can't be resolved ({error})", way_out) from error
    networks = [network(thing, one) for one in rules.networks]
    for one in found:
        address = ipaddress.ip_address(str(one[4][0]).partition("%")[0])
        allowed = any(real in each for real in embedded(address) for each in networks if real.version == each.version)
        if not allowed and not is_public(address):
            raise refused(
                thing,
                "internal_address",
                f"{host} is {address}, an internal address",
                "name its network in url_networks if that server is meant",
            )
    return found


class Plain(http.client.HTTPConnection):
    """A connection to addresses that were checked, whatever the name resolves to by now."""

    def __init__(self, host: str, port: int, found: list[tuple[Any, ...]], timeout: float) -> None:
        super().__init__(host, port, timeout=timeout)
        self.found = found
        self.opened: Any = None  # the socket, also when it was handed on to the answer

    def connect(self) -> None:
        self.sock = self.opened = connected(self.found, self.timeout or 30.0)


class Secure(http.client.HTTPSConnection):
    def __init__(self, host: str, port: int, found: list[tuple[Any, ...]], timeout: float, tls: Any) -> None:
        super().__init__(host, port, timeout=timeout, context=tls)
        self.found, self.tls = found, tls
        self.opened: Any = None  # the socket, also when it was handed on to the answer

    def connect(self) -> None:
        plain = connected(self.found, self.timeout or 30.0)
        self.opened = self.tls.wrap_socket(plain, server_hostname=self.host, do_handshake_on_connect=False)
        self.opened.do_handshake()
        self.sock = self.opened


def connected(found: list[tuple[Any, ...]], timeout: float) -> socket.socket:
    """A socket to the first address that answers."""
    failure: OSError = OSError("there is no address")
    for one in found:
        opened = socket.socket(*one[:3])
        try:
            opened.settimeout(timeout)
            opened.connect(one[4])
            return opened
        except OSError as error:
            opened.close()
            failure = error
    raise failure


def context(thing: str, rules: Rules) -> ssl.SSLContext:
    try:
        made = ssl.create_default_context(cafile=rules.ca_path)
    except (OSError, ssl.SSLError) as error:
        way_out = "give a file of certificates in PEM"
        raise refused(thing, "bad_value", f"ca_path can't be read ({error})", way_out) from error
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if not rules.verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


# Streams ------------------------------------------------------------------------------------------------------------


class Download:
    """The bytes behind an address, by read().

    total    their number, None where the server does not tell.
    framed   whether the end of the stream can be told from a connection that broke.
    """

    def __init__(self, thing: str, url: str, rules: Rules) -> None:
        self.thing, self.url, self.rules = thing, url, rules
        self.offset = 0
        self.validator = ""
        self.resumes = 0
        self.tls = context(thing, rules) if url.startswith("https:") else None
        self.connection: Any = None
        self.response: Any = None
        self.waited, self.since, self.slow = 0.0, 0.0, False
        self.ended = threading.Event()
        threading.Thread(target=self.watch, daemon=True).start()
        try:
            self.begin()
        except BaseException:
            self.ended.set()
            raise

    def begin(self) -> None:
        """The first answer, and what it tells of the whole."""
        try:
            with self.waiting():
                self.response = self.request()
        except FAULTS as error:
            raise self.failed(error) from error
        if self.response.status != 200:
            self.close()
            raise self.answered(self.response.status)
        headers = self.response.headers
        self.total: int | None = self.response.length
        self.framed = self.total is not None or self.response.chunked
        etag = headers.get("ETag", "")
        self.validator = etag if etag.startswith('"') else headers.get("Last-Modified", "")
        if headers.get("Accept-Ranges", "bytes").lower() == "none":
            self.validator = ""
        if self.total is not None and self.total > self.rules.size:
            self.close()
            raise self.too_large()

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def __enter__(self) -> Download:
        return self

    def __exit__(self, *dummy: object) -> None:
        self.ended.set()
        self.close()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Time that the server takes, and not whoever reads."""
        self.since = time.monotonic()
        try:
            yield
        finally:
            self.waited, self.since = self.waited + time.monotonic() - self.since, 0.0

    def watch(self) -> None:
        """End a connection that gives less than it must: no timeout does, where each byte comes in time."""
        began, had = 0.0, 0
        while not self.ended.wait(self.rules.slow / 20):
            since = self.since
            waited = self.waited + (time.monotonic() - since if since else 0.0)
            if waited - began < self.rules.slow:
                continue
            if self.offset - had < LEAST_RATE * self.rules.slow:
                self.slow = True
                with contextlib.suppress(OSError, AttributeError):  # it has just ended
                    socket.socket.shutdown(self.connection.opened, socket.SHUT_RDWR)
            else:
                began, had = waited, self.offset

    def request(self) -> Any:
        """The answer to a GET, from where the stream is, after all redirects."""
        url, credentials = self.url, self.rules.username is not None
        origin, hops = None, 0
        while hops <= MOST_REDIRECTS:
            parts = check_url(self.thing, url)
            here = server(parts)
            credentials = credentials and origin in (None, here)  # once dropped, they stay so
            origin = origin or here
            answer = self.ask(parts, credentials)
            if answer.status not in REDIRECTS:
                return answer
            target = answer.headers.get("Location", "")
            self.close()
            if not target:
                raise self.answered(answer.status)
            following = urljoin(url, target)
            if parts.scheme == "https" and urlsplit(following).scheme != "https":
                raise refused(
                    self.thing,
                    "insecure_redirect",
                    f"{shown(url)} redirects to {shown(following)}, which is not https",
                    "give the address of a server that stays with https",
                )
            url, hops = following, hops + 1
        raise refused(
            self.thing,
            "too_many_redirects",
            f"{shown(self.url)} redirects more than {MOST_REDIRECTS} times",
            "give the address that it leads to",
        )

    def ask(self, parts: SplitResult, credentials: bool) -> Any:
        """One request to one server."""
        host, port = str(parts.hostname), parts.port or PORTS[parts.scheme]
        found = addresses(self.thing, host, port, self.rules)
        if parts.scheme == "https":
            self.tls = self.tls or context(self.thing, self.rules)
            self.connection = Secure(host, port, found, self.rules.timeout, self.tls)
        else:
            self.connection = Plain(host, port, found, self.rules.timeout)
        headers = {"User-Agent": "kvm.storage", "Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close"}
        if credentials:
            pair = f"{self.rules.username}:{self.rules.password or ''}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        if self.offset:
            headers.update({"Range": f"bytes={self.offset}-", "If-Range": self.validator})
        path = parts.path or "/"
        self.connection.request("GET", f"{path}?{parts.query}" if parts.query else path, headers=headers)
        return self.connection.getresponse()

    def read(self, count: int) -> bytes:
        """Up to so many bytes; none at the end, and Restart where the stream must begin anew."""
        while True:
            if self.total is not None and self.offset >= self.total:
                return b""
            try:
                with self.waiting():
                    data: bytes = self.response.read1(min(count, 1 << 20))
                if not data and self.slow:
                    raise TimeoutError
                if not data and self.total is not None:
                    raise http.client.IncompleteRead(b"", self.total - self.offset)
            except FAULTS as error:
                data = error.partial if isinstance(error, http.client.IncompleteRead) else b""
                if not data:
                    self.resume(error)
                    continue
            self.offset += len(data)
            if data:
                self.resumes = 0
            if self.offset > self.rules.size:
                raise self.too_large()
            return data

    def resume(self, error: Exception) -> None:
        """Ask for the rest of the same file, if the server can tell that it is the same."""
        while True:
            self.close()
            if self.slow:
                raise self.failed(error) from error
            if self.offset and not self.validator:
                raise Restart from error
            self.resumes += 1
            if self.resumes > MOST_RESUMES:
                raise self.failed(error) from error
            time.sleep(self.rules.pause * 2 ** (self.resumes - 1))
            try:
                with self.waiting():
                    self.response = self.request()
            except FAULTS as again:
                error = again
                continue
            break
        status = self.response.status
        if self.offset and (status in (200, 416) or (status == 206 and not self.continues())):
            self.close()
            raise Restart from error
        if status not in (200, 206):
            self.close()
            raise self.answered(status)

    def continues(self) -> bool:
        """Whether a partial answer begins where the stream is, and is of a file of the same size."""
        told = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", self.response.headers.get("Content-Range", "").strip())
        if told is None or int(told.group(1)) != self.offset:
            return False
        return self.total is None or (int(told.group(2)) == self.total - 1 and told.group(3) in (str(self.total), "*"))

    def too_large(self) -> StorageError:
        size = self.rules.size
        reason = f"what {shown(self.url)} gives is larger than {size} bytes"
        return refused(self.thing, "too_large", reason, "raise max_size if that is meant")

    def answered(self, status: int) -> StorageError:
        words = http.client.responses.get(status, "")
        way_out = "give url_username and url_password" if status in (401, 403) else "look at the address"
        return refused(self.thing, "fetch_failed", f"{shown(self.url)} answers {status} {words}".rstrip(), way_out)

    def failed(self, error: Exception) -> StorageError:
        """A connection that did not come about, or broke too often."""
        words = " ".join(str(error).split()) or type(error).__name__
        if self.slow:
            words = f"it gives less than {LEAST_RATE} bytes a second"
        if isinstance(error, ssl.SSLCertVerificationError):
            reason = f"the certificate of {shown(self.url)} can't be verified ({error.verify_message})"
            return refused(
                self.thing, "bad_certificate", reason, "give ca_path if the server has an authority of its own"
            )
        way_out = "look whether the server can be reached from this host"
        return refused(self.thing, "fetch_failed", f"{shown(self.url)} can't be read ({words})", way_out)


# Checksums ----------------------------------------------------------------------------------------------------------

LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}


def checksum(thing: str, text: str, name: str, rules: Rules, url: str = "") -> tuple[str, str]:
    """(algorithm, digest) of sha256:HEX, or of sha256:URL, where a list of checksums has the file's name.

    The login is that of the server that has the image (url), and not shown to another one.
    """
    algorithm, dummy, value = text.partition(":")
    way_out = "give sha256: and 64 hexadecimal digits, or sha256: and the address of a list of checksums"
    if algorithm not in CHECKSUMS:
        reason = f"checksum {algorithm!r} is none of {', '.join(CHECKSUMS)}"
        raise refused(thing, "bad_value", reason, way_out)
    if re.fullmatch(rf"[0-9A-Fa-f]{{{LENGTHS[algorithm]}}}", value):
        return algorithm, value.lower()
    if not value.startswith(("http:", "https:")):
        raise refused(thing, "bad_value", f"checksum is no digest of {algorithm}", way_out)
    own = bool(url) and server(check_url(thing, url)) == server(check_url(thing, value))
    login = {} if own else {"username": None, "password": None}
    with Download(thing, value, Rules(**{**vars(rules), **login, "size": LARGEST_SUMS})) as download:
        parts = []
        while True:
            data = download.read(1 << 16)
            if not data:
                break
            parts.append(data)
    found = listed(b"".join(parts).decode("utf-8", "replace"), name, LENGTHS[algorithm])
    if len(found) != 1:
        reason = f"{shown(value)} has {len(found) or 'no'} {algorithm} checksums of {name!r}"
        raise refused(thing, "no_checksum", reason, "give the checksum itself")
    return algorithm, found.pop()


def listed(text: str, name: str, length: int) -> set[str]:
    """The digests of a file in the lists that sha256sum, and BSD's programs, write; or a digest that stands alone."""
    digest = rf"([0-9A-Fa-f]{{{length}}})"
    found = set()
    for line in text.splitlines():
        gnu = re.fullmatch(rf"\\?{digest}\s+\*?(\S.*?)\s*", line)
        bsd = re.fullmatch(rf"\S+ \((.+)\) = {digest}\s*", line)
        if gnu and gnu.group(2).rpartition("/")[2] == name:
            found.add(gnu.group(1).lower())
        elif bsd and bsd.group(1).rpartition("/")[2] == name:
            found.add(bsd.group(2).lower())
    alone = re.fullmatch(digest, text.strip())
    return {alone.group(1).lower()} if alone else found


def file_name(url: str) -> str:
    """The name of the file in an address."""
    return unquote(urlsplit(url).path.rpartition("/")[2])
