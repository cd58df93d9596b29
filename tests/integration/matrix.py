# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every operation on one pool: it does what its backend declares, or is refused in the words that the backend declares.

The same cells are run on a plain kernel and, for backends that need one of their own, in the lab.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.kvm.storage.plugins.module_utils.backend import OPERATIONS, Backend, Refused
from ansible_collections.kvm.storage.plugins.module_utils.backends import registry
from tests.integration.helpers import MIB, Failed, Host

SIZE = 4 * MIB
DATA = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(SIZE // 32))
AGAIN = ("volume_wipe",)  # what a second run does again
# A wipe comes last: where a volume can't be copied it is done to the only one.
ORDER = [name for name in OPERATIONS if name != "wipe"] + ["wipe"]


def checksum(data: bytes) -> str:
    """Of what a guest sees; zeroes at the end do not count, since backends round sizes up."""
    return hashlib.sha256(data.rstrip(b"\0")).hexdigest()


def of_image(*named: str | Path) -> str:
    """The checksum of an image that qemu-img can open; named is how."""
    handle, name = tempfile.mkstemp(prefix="kvm.storage-matrix-", dir="/var/tmp")
    os.close(handle)
    out = Path(name)
    try:
        subprocess.run(["qemu-img", "convert", "-O", "raw", *map(str, named), out], check=True, capture_output=True)
        return checksum(out.read_bytes())
    finally:
        out.unlink(missing_ok=True)


def of_device(path: str) -> str:
    with contextlib.suppress(FileNotFoundError):  # a plain kernel's tests have no udev
        subprocess.run(["udevadm", "settle"], check=False)
    return checksum(Path(path).read_bytes())


@dataclass
class Place:
    """A pool whose volume of a name has DATA in it.

    content  (name) -> the checksum of a volume, seen without the collection.
    names    the next names of new volumes.
    folder   for what comes out; in its pool "other" volumes can be moved to.
    slow     whether every look takes seconds: nothing is predicted, and nothing done twice.
    """

    host: Host
    kind: str
    pool: str
    name: str
    form: str
    content: Callable[[str], str]
    names: Iterator[str]
    folder: Path
    slow: bool = False

    @property
    def backend(self) -> Backend:
        found = registry.backend(self.kind)
        assert found is not None
        return found

    @property
    def formats(self) -> dict[str, str]:
        return {"format": self.form} if self.backend.makes_directory else {}

    def new(self) -> str:
        """The name of the next volume."""
        return next(self.names)

    def path(self, name: str) -> str:
        """Where the host has a volume, as the collection tells."""
        found = self.host.ok("volume_info", pool=self.pool, names=[name])["volumes"]
        return str(found[0]["path"])

    def refused(self, operation: str) -> Refused | None:
        method = self.backend.operations[operation]
        return method if isinstance(method, Refused) else None

    def do(self, module: str, **args: Any) -> dict[str, Any]:
        """Predicted, done, and not done again."""
        if self.slow:
            return self.host.ok(module, pool=self.pool, **args)
        predicted = self.host.ok(module, check=True, pool=self.pool, **args)
        done = self.host.ok(module, pool=self.pool, **args)
        assert done["changed"], done
        assert done["actions"] == predicted["actions"]
        if module not in AGAIN:
            again = self.host.ok(module, pool=self.pool, **args)
            assert (again["changed"], again["actions"]) == (False, []), again
        return done

    def refuse(self, operation: str, module: str, **args: Any) -> None:
        """It can't be done: nothing changes, and what to do instead is said."""
        method = self.refused(operation)
        assert method is not None
        self.host.refused(module, "unsupported", method.instead, pool=self.pool, **args)

    @contextlib.contextmanager
    def copy(self) -> Iterator[str]:
        """A volume of the same content that may be spoilt; the only one where there can be but one."""
        if self.refused("clone"):
            yield self.name
            return
        new = self.new()
        self.host.ok("volume_clone", pool=self.pool, name=new, source=self.source(mode="full"), **self.formats)
        yield new
        self.host.ok("volume", pool=self.pool, name=new, state="absent")

    def source(self, **more: Any) -> dict[str, Any]:
        return {"volume": self.name, **self.formats, **more}


def create(place: Place) -> None:
    new = next(place.names)
    wanted = {"name": new, "capacity": "8MiB", **place.formats}
    if place.refused("create"):
        place.refuse("create", "volume", **wanted)
        return
    place.do("volume", **wanted)
    place.host.ok("volume", pool=place.pool, name=new, state="absent")


def delete(place: Place) -> None:
    if place.refused("delete"):
        place.refuse("delete", "volume", name=place.name, state="absent")
        return
    if place.refused("create"):
        return  # what only deletes is seen where a volume was made for it by hand
    new = next(place.names)
    place.host.ok("volume", pool=place.pool, name=new, capacity="8MiB", **place.formats)
    place.do("volume", name=new, state="absent")
    assert new not in place.host.volumes(place.pool)


def clone(place: Place) -> None:
    new = next(place.names)
    wanted = {"name": new, "source": place.source(verify=True), "capacity": "8MiB"}
    if place.refused("clone"):
        place.refuse("clone", "volume_clone", **wanted)
        return
    place.do("volume_clone", **wanted)
    assert place.content(new) == checksum(DATA)
    place.host.ok("volume", pool=place.pool, name=new, state="absent")


def resize(place: Place) -> None:
    if place.refused("resize"):
        place.refuse("resize", "volume_resize", name=place.name, capacity="2GiB", **place.formats)
        return
    with place.copy() as name:
        place.do("volume_resize", name=name, capacity="16MiB", **place.formats)
        assert place.content(name) == checksum(DATA)


def upload(place: Place) -> None:
    source = place.folder / "upload.raw"
    source.write_bytes(DATA)
    wanted = {"src": str(source), "remote_src": True, "source_format": "raw"}
    if place.refused("clone"):  # what is there is written anew
        place.do("volume_upload", name=place.name, replace=True, **wanted)
        assert place.content(place.name) == checksum(DATA)
        return
    new = next(place.names)
    place.do("volume_upload", name=new, **wanted, **place.formats)
    assert place.content(new) == checksum(DATA)
    place.host.ok("volume", pool=place.pool, name=new, state="absent")


def download(place: Place) -> None:
    dest = place.folder / "download.raw"
    place.do("volume_download", name=place.name, dest=str(dest), dest_format="raw", **place.formats)
    assert checksum(dest.read_bytes()) == place.content(place.name)
    assert dest.stat().st_mode & 0o777 == 0o600
    dest.unlink()


def convert(place: Place) -> None:
    other = "qcow2" if place.form == "raw" else "raw"
    if place.refused("convert"):
        place.refuse("convert", "volume_convert", name=place.name, format="raw", to={"format": "qcow2"})
        return
    with place.copy() as name:
        place.do("volume_convert", name=name, format=place.form, to={"format": other})
        place.host.ok("volume_convert", pool=place.pool, name=name, format=other, to={"format": place.form})
        assert place.content(name) == checksum(DATA)


def snapshot(place: Place) -> None:
    wanted = {"snapshot": "before", **place.formats}
    if place.refused("snapshot"):
        place.refuse("snapshot", "volume_snapshot", name=place.name, **wanted)
        return
    with place.copy() as name:
        place.do("volume_snapshot", name=name, **wanted)
        overwrite(place, name)
        assert place.content(name) != checksum(DATA)
        place.host.ok("volume_snapshot", pool=place.pool, name=name, state="reverted", **wanted)
        assert place.content(name) == checksum(DATA)
        place.do("volume_snapshot", name=name, state="absent", **wanted)


def overwrite(place: Place, name: str) -> None:
    """As a guest would."""
    source = place.folder / "other.raw"
    source.write_bytes(DATA[::-1])
    with writing(place, name) as named:
        subprocess.run(["qemu-img", "convert", "-n", "-f", "raw", source, *named], check=True, capture_output=True)


@contextlib.contextmanager
def writing(place: Place, name: str) -> Iterator[list[str]]:
    """How qemu-img names a volume as the target of what it writes."""
    from ansible_collections.kvm.storage.plugins.module_utils import connection, nodes, transfer, volume

    with contextlib.closing(connection.Connection.open(place.host.uri)) as opened, contextlib.ExitStack() as stack:
        options = {"pool": place.pool, "name": name, **place.formats}
        spec = dict.fromkeys(volume.argument_spec())
        one = volume.Volume(opened, volume.wanted({**spec, **options}), None)
        one.read()
        path = one.before["path"]
        if path.startswith("/"):
            yield ["-O", place.form, path]
            return
        node: nodes.Node = stack.enter_context(transfer.hidden_node(one, path))
        key = place.folder / "key"
        key.write_bytes(b"".join(Path(f"/proc/self/fd/{login.descriptor}").read_bytes() for login in node.logins))
        names = [login.name for login in node.logins]
        yield ["-O", "raw", *(p for n in names for p in ("--object", f"secret,id={n},file={key}")), node.name]


def flatten(place: Place) -> None:
    if place.refused("flatten"):
        place.refuse("flatten", "volume_flatten", name=place.name, **place.formats)
        return
    new = next(place.names)
    place.host.ok("volume_clone", pool=place.pool, name=new, source=place.source(mode="linked"))
    place.do("volume_flatten", name=new, **({"format": "qcow2"} if place.formats else {}))
    found = place.content(new) if place.form != "raw" or not place.formats else of_image("-f", "qcow2", place.path(new))
    assert found == checksum(DATA)
    place.host.ok("volume", pool=place.pool, name=new, state="absent")


def migrate(place: Place) -> None:
    target = {"pool": "other", "name": "moved.qcow2", "format": "qcow2"}
    keep = place.refused("delete") is not None
    if place.refused("migrate"):
        place.refuse("migrate", "volume_migrate", name=place.name, to=target, **place.formats)
        return
    with place.copy() as name:
        place.host.ok("volume_migrate", pool=place.pool, name=name, to=target, keep_source=keep, **place.formats)
        assert of_image("-f", "qcow2", place.folder / "other/moved.qcow2") == checksum(DATA)
        assert (name in place.host.volumes(place.pool)) is keep
    place.host.ok("volume", pool="other", name="moved.qcow2", state="absent")


def wipe(place: Place) -> None:
    if place.refused("wipe"):
        place.refuse("wipe", "volume_wipe", name=place.name, **place.formats)
        return
    with place.copy() as name:
        place.do("volume_wipe", name=name, **place.formats)
        assert place.content(name) == checksum(b"")


def info(place: Place) -> None:
    found = place.host.ok("volume_info", pool=place.pool, refresh=True)["volumes"]
    assert place.name in [one["name"] for one in found]


CELLS: dict[str, Callable[[Place], None]] = {
    function.__name__: function
    for function in (
        *(create, clone, resize, upload, download, wipe, convert, snapshot, flatten, migrate, delete, info),
    )
}


def run_all(place: Place) -> None:
    """Every operation of the matrix; what fails is told of all of them."""
    assert set(CELLS) == set(OPERATIONS)
    place.host.ok("pool_dir", name="other", path=str(place.folder / "other"))
    failed = []
    for operation in ORDER:
        try:
            CELLS[operation](place)
        except (AssertionError, Failed, subprocess.CalledProcessError, OSError) as error:
            failed.append(f"{operation}: {str(error):.3000}")
    place.host.ok("pool_dir", name="other", state="absent")
    assert not failed, "\n".join([f"{place.kind}:", *failed])
