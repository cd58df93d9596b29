# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts of one run: frozen when they are first asked for, then restored onto a LAN of their own."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.servers.process import Server
from tests.servers.sweep import claim

from .catalogue import NUMBERS, STATES
from .folder import FOLDER, ROOT, Image, build_image, locked, place, publish
from .guest import Guest, State, accelerator
from .lan import Lan

TREE = "/opt/kvm/ansible_collections/kvm/storage"  # where a host has this tree


class Lab:
    """All that runs share: the image, the accelerator, and a slot below the folder that no other living run uses."""

    def __init__(self, folder: Path = FOLDER, image: Image | None = None) -> None:
        self.folder = folder
        self.image = image or build_image(folder)
        self.accelerator = accelerator(self.image, folder)
        self.claim = claim(place("run", folder))
        self.root = self.claim.root

    def close(self) -> None:
        self.claim.release()

    def frozen(self, state: State) -> Path:
        """The folder of a frozen host; made when it is not there."""
        place = self.folder / "frozen"
        found = place / f"{state.name}-{state.key(self.image, self.accelerator)}"
        with locked(place / f"{state.name}.lock"):
            if not found.is_dir():
                for stale in place.glob(f"{state.name}-*"):
                    shutil.rmtree(stale)
                self._freeze(state, found)
        return found

    def _freeze(self, state: State, into: Path) -> None:
        name = next(name for name, number in NUMBERS.items() if number == state.number)
        host = Guest(self.root / f"new-{state.name}", self.image, state, self.accelerator, name, state.number)
        try:
            host.boot()
            if state.files:
                host.put(archive(list(state.files), state.files[0].parent), "/opt/lab")
            if state.prepare:
                host.run(f"mkdir -p /opt/lab && cd /opt/lab && set -e && {state.prepare.strip()}", timeout=300)
            host.run("sync")
            with tempfile.TemporaryDirectory(dir=into.parent) as folder:
                host.freeze(Path(folder, "made"))
                publish(Path(folder, "made"), into)
        finally:
            host.stop()

    def hosts(self, name: str, wanted: tuple[tuple[str, str], ...]) -> Hosts:
        return Hosts(self, self.root / name, wanted)


class Hosts(Server):
    """Fresh hosts on one LAN. With the tree inside the first, for the tests that run there."""

    def __init__(self, lab: Lab, root: Path, wanted: tuple[tuple[str, str], ...]) -> None:
        super().__init__(root)
        self.lab = lab
        self.wanted = wanted
        self.lan = Lan(root / "lan", lab.image)
        self.guests: dict[str, Guest] = {}

    def start(self) -> Hosts:
        self.prepare()
        self.lan.start()
        for name, state in self.wanted:
            kind = STATES[state]
            self.guests[name] = Guest(self.root / name, self.lab.image, kind, self.lab.accelerator, name, NUMBERS[name])
        with ThreadPoolExecutor(len(NUMBERS)) as pool:
            for begun in [pool.submit(self._bring_up, guest) for guest in self.guests.values()]:
                begun.result()
        return self

    def _bring_up(self, guest: Guest) -> None:
        guest.restore(self.lab.frozen(guest.state), self.lan.plug(guest.number), timeout=180)
        if guest.state.files:  # what it serves must answer again after the jump of its clock
            guest.run("cd /opt/lab && test ! -x ./resume || ./resume")

    def ssh_config(self) -> Path:
        """One configuration of ssh for all hosts, by their names."""
        path = self.root / "ssh_config"
        parts = [(guest.root / "ssh_config").read_text(encoding="utf-8") for guest in self.guests.values()]
        path.write_text("".join(parts), encoding="utf-8")
        return path

    def inventory(self) -> Path:
        """An inventory of Ansible: the group hypervisors, and the storage server beside it."""
        ssh = f"-F {self.ssh_config()}"
        variables = {
            "ansible_ssh_common_args": ssh,
            # its sockets are named by the host alone, and other runs have hosts of the same names
            "ansible_control_path_dir": str(self.root / "cp"),
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        groups: dict[str, dict[str, dict[str, dict[str, str]]]] = {}
        for name, guest in sorted(self.guests.items()):
            group = "storage_servers" if guest.state.name == "storage" else "hypervisors"
            groups.setdefault(group, {"hosts": {}})["hosts"][name] = {}
        path = self.root / "inventory.json"
        path.write_text(json.dumps({"all": {"vars": variables, "children": groups}}, indent=2), encoding="utf-8")
        return path

    def stop(self) -> None:
        for guest in self.guests.values():
            guest.stop()
        self.lan.stop()
        super().stop()


def tree() -> bytes:
    """This tree as a tar archive, without what the version control ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    return archive([ROOT / name for name in listed.stdout.decode().split("\0") if name], ROOT)


def archive(files: list[Path], top: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path in files:
            if path.exists():
                tar.add(path, path.relative_to(top), recursive=False)
    return out.getvalue()
