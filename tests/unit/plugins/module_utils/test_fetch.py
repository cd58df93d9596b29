# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Downloads from real servers on loopback: what is checked at each hop, and what happens when one breaks off."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import ipaddress
import random
import socket
import ssl
import subprocess
import threading
import time

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import fetch
from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError

DATA = random.Random(7).randbytes(300_000)
HERE = ("127.0.0.0/8",)


class Server(http.server.ThreadingHTTPServer):
    """Answers by a table of path to function(handler); what was asked is kept."""

    daemon_threads = True

    def __init__(self, address, pages):
        self.pages, self.asked = pages, []
        super().__init__((address, 0), Handler)

    def url(self, path, scheme="http"):
        return f"{scheme}://{self.server_address[0]}:{self.server_address[1]}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers)))
        self.server.pages[self.path](self)

    def log_message(self, *dummy):
        pass


@contextlib.contextmanager
def serving(pages, address="127.0.0.1", tls=None):
    server = Server(address, pages)
    if tls is not None:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(tls)
        server.socket = made.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(handler, status, headers=(), body=b"", length=None):
    handler.send_response(status)
    for name, value in headers:
        handler.send_header(name, value)
    if length != "none":
        handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)
    handler.close_connection = True


def whole(handler):
    answer(handler, 200, body=DATA)


def leads_to(url):
    return lambda handler: answer(handler, 302, [("Location", url)])


def breaking(every=100_000, headers=(("ETag", '"one"'),), honest=True, status=None):
    """A server whose connections break after so many bytes, and which gives ranges."""

    def page(handler):
        asked = handler.headers.get("Range")
        begin = int(asked[6:-1]) if asked and honest else 0
        rest = DATA[begin:]
        span = [("Content-Range", f"bytes {begin}-{len(DATA) - 1}/{len(DATA)}")] if begin else []
        code = 206 if begin else 200
        answer(handler, status if asked and status else code, [*headers, *span], rest[:every], length=len(rest))

    return page


def rules(**others):
    return fetch.Rules(**{"networks": HERE, "timeout": 3.0, "pause": 0.0, **others})


def got(url, **others):
    with fetch.Download("image", url, rules(**others)) as download:
        parts = []
        while True:
            data = download.read(65536)
            if not data:
                return b"".join(parts)
            parts.append(data)


def refusal(url, **others):
    with pytest.raises(StorageError) as caught:
        got(url, **others)
    return caught.value.code


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of 127.0.0.1, with its key."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=loopback"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", str(path) + ".crt"]
    subprocess.run(command, check=True, capture_output=True)
    with open(path, "ab") as file:
        file.write((path.parent / "both.pem.crt").read_bytes())
    return path


# what is asked for


def test_a_file_is_got_whole():
    with serving({"/disk?token=1": whole}) as server:
        assert got(server.url("/disk?token=1#part")) == DATA
        assert server.asked[0][1]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("ftp://example.org/disk", "bad_url"),
        ("file:///etc/shadow", "bad_url"),
        ("/etc/shadow", "bad_url"),
        ("https:///disk", "bad_url"),
        ("https://example.org/d\u00efsk", "bad_url"),
        ("https://example.org:99999/", "bad_url"),
        ("https://[::1/", "bad_url"),
        ("https://example.org/a b", "bad_url"),
        ("https://example.org/\r\nHost: other", "bad_url"),
        ("https://user:word@example.org/disk", "credentials_in_url"),
        ("https://user@example.org/disk", "credentials_in_url"),
        ("http://no.such.name.invalid/", "unreachable"),
    ],
)
def test_addresses_that_can_not_be_meant(url, code):
    assert refusal(url) == code


def test_a_message_does_not_tell_what_an_address_hides():
    with pytest.raises(StorageError) as caught:
        got("https://user:hush@127.0.0.1/disk?signature=abc")
    assert "hush" not in str(caught.value)
    assert "signature" not in str(caught.value)


# internal addresses


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fd00:ec2::254", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("::ffff:93.184.216.34", True),
        ("2002:7f00:1::", False),
        ("2002:a9fe:a9fe::", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::a9fe:a9fe", False),
    ],
)
def test_which_addresses_are_internal(address, public):
    assert fetch.is_public(ipaddress.ip_address(address)) is public


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "localhost", "[::ffff:127.0.0.1]"])
def test_internal_addresses_are_refused_in_every_spelling(host):
    with serving({"/": whole}) as server:
        url = f"http://{host}:{server.server_address[1]}/"
        assert refusal(url, networks=()) == "internal_address"
        assert refusal(url, networks=("10.0.0.0/8",)) == "internal_address"
        assert server.asked == []


def test_a_redirect_to_an_internal_address_is_refused():
    with serving({"/": whole}, "127.0.0.2") as inside, serving({"/": leads_to(inside.url("/"))}) as outside:
        assert refusal(outside.url("/"), networks=("127.0.0.1/32",)) == "internal_address"
        assert inside.asked == []
        assert got(outside.url("/")) == DATA


def test_one_internal_address_among_public_ones_is_enough(monkeypatch):
    found = [(socket.AF_INET, 1, 6, "", (one, 80)) for one in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(fetch.socket, "getaddrinfo", lambda *dummy, **more: found)
    assert refusal("http://example.org/", networks=()) == "internal_address"


def test_the_address_that_was_checked_is_the_one_that_is_asked(monkeypatch):
    """A name that changes its mind between the check and the connection (DNS rebinding)."""
    with serving({"/": whole}) as good, serving({"/": whole}, "127.0.0.2") as bad:
        answers = [[(socket.AF_INET, 1, 6, "", server.server_address)] for server in (good, bad)]
        monkeypatch.setattr(fetch.socket, "getaddrinfo", lambda *dummy, **more: answers.pop(0))
        assert got("http://moving.example.org/", networks=("127.0.0.1/32",)) == DATA
        assert (len(good.asked), bad.asked, len(answers)) == (1, [], 1)


# redirects


@pytest.mark.parametrize(("hops", "code"), [(10, ""), (11, "too_many_redirects")])
def test_redirects_are_followed_so_far(hops, code):
    pages = {f"/{number}": leads_to(f"/{number + 1}") for number in range(hops)}
    with serving({**pages, f"/{hops}": whole}) as server:
        assert (refusal(server.url("/0")) if code else got(server.url("/0"))) == (code or DATA)


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("file:///etc/shadow", "bad_url"),
        ("http://user:word@127.0.0.1/", "credentials_in_url"),
        ("", "fetch_failed"),
    ],
)
def test_redirects_that_lead_astray(target, code):
    with serving({"/": leads_to(target)}) as server:
        assert refusal(server.url("/")) == code


def test_credentials_stay_with_their_server():
    login = {"username": "me", "password": "word"}
    with serving({}) as other, serving({}) as server:
        server.pages.update({"/0": leads_to("/1"), "/1": leads_to(other.url("/2")), "/3": whole})
        other.pages["/2"] = leads_to(server.url("/3"))
        assert got(server.url("/0"), **login) == DATA
        has = [(path, "Authorization" in headers) for path, headers in server.asked + other.asked]
        assert has == [("/0", True), ("/1", True), ("/3", False), ("/2", False)]


def test_the_list_of_checksums_of_another_server_gets_no_credentials():
    """The login is that of the server that has the image."""
    text = f"{SUM}  disk.raw\n".encode()
    login = rules(username="me", password="word")

    def lists(server):
        return f"sha256:{server.url('/SHA256SUMS')}"

    pages = {"/SHA256SUMS": lambda handler: answer(handler, 200, body=text)}
    with serving(pages) as own, serving(pages) as other:
        for server, told in ((own, True), (other, False)):
            assert fetch.checksum("image", lists(server), "disk.raw", login, own.url("/disk.raw"))[1] == SUM
            assert ["Authorization" in headers for dummy, headers in server.asked] == [told]


def test_https_never_falls_to_http(certificate):
    with serving({"/": whole}) as plain, serving({"/": leads_to(plain.url("/"))}, tls=certificate) as server:
        assert refusal(server.url("/", "https"), ca_path=str(certificate)) == "insecure_redirect"
        assert plain.asked == []


# TLS


def test_certificates_are_verified(certificate):
    with serving({"/": whole}, tls=certificate) as server:
        url = server.url("/", "https")
        assert refusal(url) == "bad_certificate"
        assert got(url, ca_path=str(certificate)) == DATA
        assert got(url, verify=False) == DATA
    with serving({"/": whole}, "127.0.0.2", tls=certificate) as server:  # which has not its name
        assert refusal(server.url("/", "https"), ca_path=str(certificate)) == "bad_certificate"


# what breaks off


@pytest.mark.parametrize("headers", [(("ETag", '"one"'),), (("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT"),)])
def test_a_connection_that_breaks_is_taken_up(headers):
    with serving({"/": breaking(headers=headers)}) as server:
        assert got(server.url("/")) == DATA
        asked = [(had.get("Range"), had.get("If-Range")) for dummy, had in server.asked]
        assert asked == [(None, None), ("bytes=100000-", headers[0][1]), ("bytes=200000-", headers[0][1])]


@pytest.mark.parametrize(
    "page",
    [
        breaking(headers=()),
        breaking(headers=(("ETag", 'W/"weak"'),)),
        breaking(headers=(("ETag", '"one"'), ("Accept-Ranges", "none"))),
        breaking(honest=False),
        breaking(status=416),
        breaking(honest=False, status=206),
    ],
    ids=["no validator", "weak", "no ranges", "changed", "416", "other range"],
)
def test_what_can_not_be_taken_up_begins_anew(page):
    with serving({"/": page}) as server, pytest.raises(fetch.Restart):
        got(server.url("/"))


def test_a_server_that_keeps_breaking_is_given_up():
    with serving({"/": breaking(every=0)}) as server:
        assert refusal(server.url("/")) == "fetch_failed"
        assert len(server.asked) == fetch.MOST_RESUMES + 1


@pytest.mark.parametrize("part", ["head", "body", "without an end", "chunk"])
def test_a_server_that_drips_is_given_up(part):
    """Each byte comes within the timeout, and all of them would take years."""
    begins = {
        "head": b"",
        "body": b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
        "without an end": b"HTTP/1.1 200 OK\r\n\r\n",
        "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    }

    def page(handler):
        with contextlib.suppress(OSError):
            handler.wfile.write(begins[part])
            for _each in range(600):
                handler.wfile.write(b"HTTP/1.1 200 " if part == "head" and not _each else b"1")
                time.sleep(0.05)

    with serving({"/": page}) as server, pytest.raises(StorageError, match="less than 1024 bytes a second") as caught:
        got(server.url("/"), slow=1.0)
    assert caught.value.code == "fetch_failed"


def test_a_server_that_falls_silent_is_given_up():
    given_up = threading.Event()

    def page(handler):
        answer(handler, 200, body=DATA[:10], length=len(DATA))
        handler.wfile.flush()
        given_up.wait(30)

    with serving({"/": page}) as server:
        with pytest.raises(fetch.Restart):
            got(server.url("/"), timeout=0.2)
        given_up.set()


@pytest.mark.parametrize("status", [401, 404, 500, 204])
def test_answers_that_are_no_file(status):
    with serving({"/": lambda handler: answer(handler, status)}) as server:
        assert refusal(server.url("/")) == "fetch_failed"


def test_a_file_that_is_too_large_is_refused_before_and_while_it_comes():
    def endless(handler):
        answer(handler, 200, body=DATA, length="none")

    with serving({"/told": whole, "/untold": endless}) as server:
        assert refusal(server.url("/told"), size=len(DATA) - 1) == "too_large"
        assert refusal(server.url("/untold"), size=len(DATA) - 1) == "too_large"
        with fetch.Download("image", server.url("/untold"), rules()) as download:
            assert (download.framed, download.total) == (False, None)


def test_chunks_that_end_early_are_not_the_whole():
    def page(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"5\r\nhello\r\n5\r\nwor")
        handler.close_connection = True

    with serving({"/": page}) as server, pytest.raises(fetch.Restart):
        got(server.url("/"))


# checksums

SUM = hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{SUM}  disk.raw\n{'0' * 64}  other.raw\n", {SUM}),
        (f"{SUM} *./images/disk.raw\n", {SUM}),
        (f"SHA256 (disk.raw) = {SUM.upper()}\n", {SUM}),
        (f"{SUM}\n", {SUM}),
        (f"{SUM}  other.raw\n", set()),
        (f"{SUM}  my-disk.raw\n", set()),
        (f"{SUM}  a/disk.raw\n{'0' * 64}  b/disk.raw\n", {SUM, "0" * 64}),
        (f"{SUM}0  disk.raw\n", set()),
        ("", set()),
    ],
)
def test_lists_of_checksums(text, found):
    assert fetch.listed(text, "disk.raw", 64) == found


def test_a_checksum_is_given_or_looked_up():
    def page(handler):
        answer(handler, 200, body=f"{SUM}  disk.raw\n".encode())

    with serving({"/SHA256SUMS": page}) as server:
        assert fetch.checksum("image", f"sha256:{SUM.upper()}", "disk.raw", rules()) == ("sha256", SUM)
        assert fetch.checksum("image", "sha256:" + server.url("/SHA256SUMS"), "disk.raw", rules()) == ("sha256", SUM)
        with pytest.raises(StorageError) as caught:
            fetch.checksum("image", "sha256:" + server.url("/SHA256SUMS"), "other.raw", rules())
        assert caught.value.code == "no_checksum"


@pytest.mark.parametrize(
    "text", ["", SUM, "md5:" + "0" * 32, "sha256:" + "0" * 63, "sha512:" + SUM, "sha256:file:///x"]
)
def test_checksums_that_can_not_be_meant(text):
    with pytest.raises(StorageError) as caught:
        fetch.checksum("image", text, "disk.raw", rules())
    assert caught.value.code == "bad_value"
