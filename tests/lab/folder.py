# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's own folder: what was built and frozen, each under the checksum of what went into it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from pathlib import Path

from tests.servers.process import LONGEST_ROOT, ServerError

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
FOLDER = Path(os.environ.get("KVM_STORAGE_LAB") or ROOT / ".cache" / "lab").resolve()


# The longest that is put below a place of running hosts; sockets lie there, whose names are limited.
LONGEST_BELOW = len("/99/molecule/up/storage")


def place(name: str, folder: Path = FOLDER) -> Path:
    """Where running hosts lie: in the lab folder; where that is too deep for the names of sockets, below /var/tmp."""
    inside = folder / name
    if len(str(inside)) + LONGEST_BELOW <= LONGEST_ROOT:
        return inside
    return Path("/var/tmp", f"kvm.storage-lab-{checksum(str(folder))}", name)


@dataclass(frozen=True)
class Image:
    """A built image: `folder` has full.qcow2, bare.qcow2, packages.img, vmlinuz, initrd.img and the lab's ssh key."""

    folder: Path

    @property
    def key(self) -> str:
        return self.folder.name

    @property
    def ssh_key(self) -> Path:
        return self.folder / "ssh_key"

    def facts(self) -> dict[str, str]:
        """qemu.env: the QEMU that boots it."""
        lines = (self.folder / "qemu.env").read_text(encoding="utf-8").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def qemu(self) -> list[str]:
        """The command of the QEMU that boots guests, with the folders of its firmware."""
        facts = self.facts()
        folders = [word for name in facts.get("data", "").split(":") if name for word in ("-L", name)]
        return [facts["qemu"], *folders]

    def environment(self) -> dict[str, str]:
        modules = self.facts().get("modules", "")
        return {"QEMU_MODULE_DIR": modules} if modules else {}

    def qemu_img(self, *argv: str | Path) -> None:
        command = [self.facts()["qemu_img"], *map(str, argv)]
        environment = {**os.environ, **self.environment()}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServerError(f"{' '.join(command)}: {done.stderr.strip()}")


def build_image(folder: Path = FOLDER) -> Image:
    """The image that the tree describes, in a second where it is there; or the one that KVM_STORAGE_LAB_IMAGE names."""
    if given := os.environ.get("KVM_STORAGE_LAB_IMAGE"):
        return Image(Path(given).resolve())
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([HERE / "build", folder], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ServerError("the lab's image: not built; the reason is above")
    return Image(Path(done.stdout.splitlines()[-1]))


def checksum(*parts: str | Path) -> str:
    """A short checksum of texts, and of files by their content."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.read_bytes() if isinstance(part, Path) else part.encode())
        found.update(b"\0")
    return found.hexdigest()[:16]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One at a time, also among several runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="ascii") as handle:
        flock(handle, LOCK_EX)
        yield


def publish(made: Path, name: Path) -> None:
    """What is complete gets its name; what had it before goes."""
    shutil.rmtree(name, ignore_errors=True)
    made.rename(name)
