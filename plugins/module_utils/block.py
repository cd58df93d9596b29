# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Block devices of this host as the kernel shows them: where a LUN comes from, and who has it in use."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import stat

SYS = "/sys"


def read(path: str) -> str:
    """An attribute of sysfs; empty where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as attribute:
            return attribute.read().strip()
    except OSError:
        return ""


def luns(scsi_host: str) -> list[str]:
    """The block devices of a SCSI host such as host3, in the order of their addresses."""
    number = scsi_host.removeprefix("host")
    return in_order(glob.glob(f"{SYS}/bus/scsi/devices/{number}:*:*:*/block/*"))


def luns_of_session(place: str) -> list[str]:
    """The block devices of an iSCSI session of sysfs; some adapters have many sessions on one host."""
    return in_order(glob.glob(f"{place}/device/target*/*:*:*:*/block/*"))


def in_order(found: list[str]) -> list[str]:
    address = [tuple(map(int, path.split("/")[-3].split(":"))) for path in found]
    return [f"/dev/{os.path.basename(path)}" for dummy, path in sorted(zip(address, found))]


def folders(device: str) -> list[str]:
    """The folders of sysfs of a device and its partitions."""
    own = f"{SYS}/class/block/{os.path.basename(os.path.realpath(device))}"
    return [own, *(os.path.dirname(path) for path in sorted(glob.glob(f"{own}/*/partition")))]


def numbers(device: str) -> set[str]:
    """The numbers, such as 8:16, of a device and its partitions."""
    return {number for number in (read(f"{folder}/dev") for folder in folders(device)) if number}


def holders(device: str) -> list[str]:
    """The devices that stand on a device or its partitions: multipath maps, logical volumes, RAIDs."""
    names = [os.path.basename(path) for folder in folders(device) for path in sorted(glob.glob(f"{folder}/holders/*"))]
    return [read(f"{SYS}/class/block/{name}/dm/name") or name for name in names]


def number_of(path: str) -> str:
    """The number of the block device that a path leads to; empty for anything else."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ""
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}" if stat.S_ISBLK(status.st_mode) else ""


def written(descriptor: int) -> tuple[int, ...]:
    """How many sectors were written to a device or partition since it is there; () where the kernel does not count."""
    with contextlib.suppress(OSError):
        os.fsync(descriptor)  # what somebody has written counts when it goes to the disk
    number = os.fstat(descriptor).st_rdev
    found = read(f"{SYS}/dev/block/{os.major(number)}:{os.minor(number)}/stat").split()
    return (int(found[6]),) if len(found) > 6 else ()


def written_at(path: str) -> tuple[int, ...]:
    """The same by the path of a device."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return written(descriptor)
    finally:
        os.close(descriptor)


def mounts(table: str = "/proc/self/mountinfo") -> list[tuple[str, str]]:
    """Every mount of a device, as its number and the mount point."""
    found = []
    for line in read(table).splitlines():
        own, dummy, source = (part.split() for part in line.partition(" - "))
        # a file system of its own numbers, such as btrfs, names the device as its source only
        number = own[2] if not own[2].startswith("0:") else number_of(source[1])
        found.append((number, re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), own[4])))
    return found


def swaps(table: str = "/proc/swaps") -> list[str]:
    """The numbers of the devices that are swap."""
    return [number_of(line.split()[0]) for line in read(table).splitlines()[1:]]


def staying_users(device: str) -> list[str]:
    """What the kernel itself has on a device or its partitions, in words."""
    own = numbers(device)
    users = [f"mounted on {point}" for number, point in mounts() if number in own]
    users += ["swap" for number in swaps() if number in own]
    return users + [f"held by {name}" for name in holders(device)]


def openers(devices: list[str]) -> dict[str, list[str]]:
    """The processes that have devices or their partitions open, in words."""
    found: dict[str, list[str]] = {device: [] for device in devices}
    owner = {number: device for device in devices for number in numbers(device)}
    for descriptor in glob.iglob("/proc/[0-9]*/fd/*") if owner else ():
        device = owner.get(number_of(descriptor), "")
        process = descriptor.split("/")[2]
        words = f"open in {read(f'/proc/{process}/comm')} (process {process})"
        if device and words not in found[device]:
            found[device].append(words)
    return found


def claimed(device: str) -> bool | None:
    """Whether someone has a device for itself, as a mount in any namespace does; None where it can't be seen."""
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EIO, errno.ENOMEDIUM):
            return False  # it is gone, or nothing can be read of it any more
        return True if error.errno == errno.EBUSY else None
    os.close(descriptor)
    return False


def same_number(devices: list[str]) -> list[str]:
    """The devices whose WWN another one of them has too."""
    numbers = {device: read(f"{SYS}/class/block/{os.path.basename(device)}/device/wwid") for device in devices}
    every = list(numbers.values())
    return [device for device, number in numbers.items() if number and every.count(number) > 1]
