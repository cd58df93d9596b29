# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""No image is readable by others, not for a moment, whatever the umask of the run is.

strace sees with which mode each file comes into being and each later change, in the modules, in the tools that they
start, and in libvirtd.
"""

from __future__ import annotations

import gzip
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.integration import tracing
from tests.integration.helpers import MIB, Host
from tests.integration.tracing import ROOT, Call, Traced
from tests.servers.libvirtd import Libvirtd

MODE = re.compile(r"\b0([0-7]{3,4})\b")
OTHERS = 0o077
# What is no image: the locks of runs, and Python's own.
NO_IMAGE = re.compile(r"/locks/|\.pyc|^/(proc|dev|sys)/|^/dev/shm/")


class Run(NamedTuple):
    """A module that makes files, and the names in the pools that it leaves."""

    module: str
    options: dict[str, Any]


def volume(name: str, **options: Any) -> Run:
    return Run("volume", {"pool": "images", "name": name, "capacity": "1MiB", **options})


def clone(name: str, source: str, form: str, mode: str, **options: Any) -> Run:
    given = {"volume": source, "format": form, "mode": mode}
    return Run("volume_clone", {"pool": "images", "name": name, "source": given, **options})


def on(module: str, name: str, form: str, **options: Any) -> Run:
    return Run(module, {"pool": "images", "name": name, "format": form, **options})


BASE = {"volume": "qcow2", "format": "qcow2"}
LUKS = {"capacity": "4MiB", "encryption": {"secret_usage": "disk"}}
MADE = [
    *(volume(form, format=form) for form in ("raw", "qcow2", "qed", "qcow", "vdi", "vmdk", "vpc")),
    *(volume(f"raw-{way}", format="raw", preallocation=way) for way in ("falloc", "full")),
    *(volume(f"qcow2-{way}", format="qcow2", preallocation=way) for way in ("metadata", "falloc", "full")),
    volume("raw-allocated", format="raw", allocation="512KiB"),
    volume("nocow", format="qcow2", nocow=True),
    volume("over", format="qcow2", backing=BASE),
    clone("linked", "qcow2", "qcow2", "linked"),
    clone("full", "qcow2", "qcow2", "full"),
    clone("full-raw", "qcow2", "qcow2", "full", format="raw", preallocation="full"),
    clone("full-vmdk", "raw", "raw", "full", format="vmdk"),
    clone("auto", "raw", "raw", "auto", capacity="2MiB"),
    clone("of-overlay", "linked", "qcow2", "auto"),
    on("volume", "raw", "raw", capacity="2MiB"),
    on("volume", "qcow2", "qcow2", capacity="2MiB"),
    on("volume_resize", "raw", "raw", capacity="3MiB"),
    on("volume_resize", "full", "qcow2", capacity="3MiB"),
    on("volume_rebase", "over", "qcow2", backing={"volume": "full", "format": "qcow2"}),
    on("volume_flatten", "linked", "qcow2"),
    on("volume_commit", "over", "qcow2"),
    on("volume_snapshot", "of-overlay", "qcow2", snapshot="one", kind="internal"),
    on("volume_snapshot", "of-overlay", "qcow2", snapshot="one", kind="internal", state="reverted"),
    on("volume_snapshot", "qcow2-falloc", "qcow2", snapshot="one", kind="external"),
    on("volume_snapshot", "qcow2-falloc", "qcow2", snapshot="one", kind="external", state="reverted"),
    on("volume_snapshot", "qcow2-falloc", "qcow2", snapshot="one", kind="external", state="absent"),
    on("volume_convert", "raw-full", "raw", to={"format": "qcow2", "compress": True}),
    on("volume_convert", "vmdk", "vmdk", to={"format": "raw"}, new_name="was-vmdk"),
    on("volume_convert", "qcow2-full", "qcow2", to={"format": "vdi"}),
    on("volume_migrate", "vpc", "vpc", to={"pool": "archive"}),
    on("volume_migrate", "qcow2-metadata", "qcow2", to={"pool": "archive", "format": "raw"}),
    on("volume_migrate", "nocow", "qcow2", to={"name": "renamed"}),
    on("volume_wipe", "raw-falloc", "raw"),
    *(volume(f"luks-{form}", format=form, **LUKS) for form in ("raw", "qcow2")),
    volume("luks-falloc", format="raw", preallocation="falloc", **LUKS),
    on("volume", "luks-raw", "raw", **{**LUKS, "capacity": "6MiB"}),
    on("volume_wipe", "qcow2-falloc", "qcow2"),
]


def uploads(image: Path, packed: Path, folder: Path) -> list[Run]:
    def upload(name: str, **options: Any) -> Run:
        given = {"pool": "images", "name": name, "remote_src": True, "source_format": "raw"}
        return Run("volume_upload", {**given, "src": str(image), **options})

    return [
        upload("up-raw", format="raw"),
        upload("up-qcow2", format="qcow2"),
        upload("up-packed", format="raw", src=str(packed)),
        upload("up-staged", format="qcow2", src=str(packed), staging_directory=str(folder)),
    ]


def downloads(folder: Path) -> list[Run]:
    several: list[dict[str, Any]] = [
        {},
        {"dest_format": "raw"},
        {"compression": "gz"},
        {"dest_format": "raw", "compression": "xz"},
    ]
    return [
        on("volume_download", "full", "qcow2", dest=f"{folder}/down-{number}", **more)
        for number, more in enumerate(several)
    ]


def there(runs: list[Run]) -> list[Run]:
    return [run for run in runs if (ROOT / f"plugins/modules/{run.module}.py").is_file()]


@pytest.fixture
def host(fresh_hypervisor: Libvirtd, scratch: Path) -> Host:
    made = Host(fresh_hypervisor.uri, scratch)
    for name in ("images", "archive"):
        made.ok("pool_dir", name=name, path=f"{scratch}/{name}", permissions={"mode": "0755"})
    made.ok("secret", usage="volume", usage_name="disk", value="not a secret, but one that is long enough")
    return made


def exposed(calls: list[Call], known: set[str]) -> Iterator[str]:
    """The files that came into being, or were changed, so that others than their owner may use them.

    known are those that are there. An open with O_CREAT of one of these makes nothing: its mode is of no meaning.
    """
    for call in calls:
        path = call.real or call.path
        if call.result < 0 or NO_IMAGE.search(path):
            continue
        modes = [int(found, 8) for found in MODE.findall(TEXTS.sub('""', call.arguments))]
        if "chmod" in call.name:
            wrong = [mode for mode in modes if mode & OTHERS]
        elif call.name in tracing.OPENS and re.search(r"O_CREAT|O_TMPFILE", call.arguments):
            wrong = [mode for mode in modes if mode & OTHERS and path not in known]
            known.add(path)
        else:
            continue
        if wrong:
            yield f"{call.name} {path}: mode {wrong[0]:04o}"


TEXTS = re.compile(r'"(?:[^"\\]|\\.)*"|<[^<>]*>')


def files(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*") if path.is_file()}


def loose(folder: Path) -> list[str]:
    """What is readable by others in the end."""
    return [
        f"{path}: {path.stat().st_mode & 0o777:04o}"
        for path in folder.rglob("*")
        if path.is_file() and path.stat().st_mode & OTHERS
    ]


def test_no_image_is_readable_by_others(host: Host, scratch: Path, tmp_path: Path, hypervisor: Libvirtd) -> None:
    image, packed = tmp_path / "image.raw", tmp_path / "image.raw.gz"
    image.write_bytes(b"data" * MIB)
    packed.write_bytes(gzip.compress(image.read_bytes()))
    for path in (image, packed):
        path.chmod(0o600)
    runs = there([*MADE, *uploads(image, packed, tmp_path), *downloads(tmp_path)])
    known, wrong, did = files(scratch) | files(tmp_path), [], []
    assert hypervisor.pid is not None
    watch = tracing.attached(hypervisor.pid, tmp_path / "libvirtd.log")
    try:
        with Traced(tmp_path / "log", umask=0) as traced:
            for run in runs:
                answer = traced.run(run.module, {"uri": host.uri, **run.options})
                did.append(answer.result)
                wrong += [f"{run}: {one}" for one in loose(scratch)]
    finally:
        watch.send_signal(signal.SIGINT)
        watch.communicate(timeout=120)
    daemon = [call for one in tracing.read(tmp_path / "libvirtd.log").values() for call in one.calls]
    wrong += [f"libvirtd: {one}" for one in exposed(daemon, known)]
    for number, run in enumerate(runs, 1):
        wrong += [f"{run}: {one}" for one in exposed(traced.did(number).calls, known)]
    failed = [f"{run}: {result['msg']}" for run, result in zip(runs, did, strict=True) if result.get("failed")]
    assert not failed, "\n".join(failed)
    assert not wrong, "\n".join(wrong)
    assert len(known) >= 40, "too few files were seen"


def test_what_is_asked_for_is_seen(host: Host, scratch: Path, tmp_path: Path) -> None:
    """Else the proof could not fail: a mode that the task gives is set, and told by the same means."""
    options = {"pool": "images", "name": "open.qcow2", "format": "qcow2", "capacity": "1MiB"}
    with Traced(tmp_path / "log", umask=0) as traced:
        answer = traced.run("volume", {"uri": host.uri, **options, "permissions": {"mode": "0644"}})
        assert not answer.result.get("failed"), answer.result
    assert any("0644" in one for one in exposed(traced.did(1).calls, set()))
    assert loose(scratch / "images")
