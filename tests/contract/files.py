# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The images that examples bring into volumes: made as their names say, and given by a web server on loopback."""

from __future__ import annotations

import bz2
import functools
import gzip
import hashlib
import http.server
import lzma
import subprocess
import threading
from pathlib import Path
from typing import Any

SIZE = 4 << 20
PACK = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *dummy: Any) -> None:
        pass


class Files:
    """A folder of images, and its server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        handler = functools.partial(Quiet, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def make(self, name: str, form: str) -> Path:
        """An image of a format, packed as the end of its name says; the same each time."""
        path = self.folder / name
        if not path.exists():
            raw = self.folder / "raw"
            raw.write_bytes(hashlib.sha256(name.encode()).digest() * (SIZE // 64) + bytes(SIZE // 2))
            subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", form, str(raw), str(path)], check=True)
            raw.unlink()
            if path.suffix in PACK:
                path.write_bytes(PACK[path.suffix](path.read_bytes()))
        return path

    def args(self, args: dict[str, Any]) -> dict[str, Any]:
        """The arguments of an upload: what the action plugin would bring over is here, servers are this one."""
        found = dict(args)
        if "src" in found:
            found.update(src=str(self.make(Path(found["src"]).name, found["source_format"])), remote_src=True)
        if "url" in found:
            path = self.make(Path(found["url"]).name, found["source_format"])
            found.update(url=self.url(path.name), url_networks=["127.0.0.0/8"])
            algorithm, dummy, listed = found.get("checksum", "").partition(":")
            if "://" in listed:
                digest = hashlib.new(algorithm, path.read_bytes()).hexdigest()
                (self.folder / Path(listed).name).write_text(f"{digest}  {path.name}\n", encoding="utf-8")
                found["checksum"] = f"{algorithm}:{self.url(Path(listed).name)}"
                found["validate_certs"] = False  # of both addresses only the loopback's http is here
        return found

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/{name}"
