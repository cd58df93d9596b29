# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random layouts that a host can have, and random ones that it can come to from where it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from .model import Host, base_of, bytes_of, rounded

POOLS = ("images", "scratch", "Vol_2")
VOLUMES = ("base", "web01.qcow2", "db+1", "x")
SECRETS = (("ceph", "client.vms"), ("iscsi", "iqn.2026-01.example:disk"), ("tls", "tls"), ("vtpm", "guest"))
LUKS_SECRET = ("volume", "/disks/one")
CEPH_KEYS = ("AQBAAAAAAAAAABAAQUFBQUFBQUFBQUFBQUFBQQ==", "AQBAAAAAAAAAABAAQkJCQkJCQkJCQkJCQkJCQg==")
# Each is larger than the one before, or the same in other words. libvirt grows nothing to less than what is allocated,
# metadata included, so the steps are wide.
SIZES = ("524288", "512KiB", "0.5MiB", "1048576", "1M", "1.5MiB", "2MB", "3m", "4096KiB", "1GiB", "1TiB")
LARGEST_WRITTEN = "4096KiB"  # what is preallocated stays small

Draw = Any


def sometimes(draw: Draw, item: dict[str, Any], name: str, values: st.SearchStrategy[Any]) -> None:
    """Give an option, or leave it out."""
    if draw(st.booleans()):
        item[name] = draw(values)


def modes() -> st.SearchStrategy[str]:
    return st.sampled_from(["0700", "0711", "755", "0750", "0775"])


def secret(draw: Draw, key: tuple[str, str], host: Host) -> dict[str, Any]:
    item: dict[str, Any] = {"usage": key[0], "usage_name": key[1]}
    there = host.secrets.get(key)
    sometimes(draw, item, "description", st.sampled_from(["a key", "<&'\">", "ключ"]))
    sometimes(draw, item, "ephemeral", st.booleans())
    if there is None or not there.private:
        sometimes(draw, item, "private", st.booleans())
        sometimes(
            draw, item, "value", st.sampled_from(CEPH_KEYS if key[0] == "ceph" else ("one", "two words", "\u00fc"))
        )
    return item


def pool(draw: Draw, name: str, root: Path, host: Host) -> dict[str, Any]:
    there = host.pools.get(name)
    path = draw(st.sampled_from([f"{root}/{name}", f"{root}/{name}/", f"{root}//{name}"]))
    item: dict[str, Any] = {"type": "dir", "name": name, "path": path}
    state = draw(st.sampled_from(["active", "active", "active", "inactive", None]))
    transient = draw(st.integers(0, 7)) == 0 and not (there and there.persistent) and state != "inactive"
    if state is not None:
        item["state"] = state
    if transient:
        item["persistent"] = False
    else:
        sometimes(draw, item, "autostart", st.booleans())
    if draw(st.booleans()):
        item["permissions"] = {"mode": draw(modes())}
        if draw(st.booleans()):
            item["permissions"].update(
                owner=draw(st.sampled_from(["0", "64055"])), group=draw(st.sampled_from(["0", "108"]))
            )
    return item


def volume(
    draw: Draw, pool_name: str, name: str, host: Host, bases: list[tuple[str, str]], path: str
) -> dict[str, Any]:
    """A volume that is there or is to come; bases are those below which it may be put."""
    item: dict[str, Any] = {"pool": pool_name, "name": name}
    there = host.files.get(path)
    if there is not None:
        return changed_volume(draw, item, there, host)
    base = draw(st.sampled_from(bases)) if bases and draw(st.booleans()) else None
    form = "qcow2" if base else draw(st.sampled_from(["raw", "qcow2"]))
    if base or form == "raw":
        sometimes(draw, item, "format", st.just(form))
    else:
        item["format"] = form
    sizes = SIZES
    if not base:
        sometimes(
            draw, item, "preallocation", st.sampled_from(["off", "falloc", "full"] + ["metadata"] * (form == "qcow2"))
        )
        if item.get("preallocation") not in (None, "off"):
            sizes = SIZES[: SIZES.index(LARGEST_WRITTEN)]
        if item.get("preallocation") == "metadata":
            item["format"] = form
    if not base or draw(st.booleans()):
        item["capacity"] = draw(st.sampled_from(sizes))
    if base:
        item["backing"] = {"volume": base[1], "format": None}
        if base[0] != pool_name or draw(st.booleans()):
            item["backing"]["pool"] = base[0]
    if form == "qcow2":
        sometimes(draw, item, "cluster_size", st.sampled_from(["64KiB", "65536", "128K", "4096"]))
        sometimes(draw, item, "compat", st.sampled_from(["0.10", "1.1"]))
        if item.get("compat") != "0.10":
            sometimes(draw, item, "lazy_refcounts", st.booleans())
    sometimes(draw, item, "immutable", st.booleans())
    writable = [] if item.get("immutable") else ["0600", "660"]
    sometimes(draw, item, "permissions", st.sampled_from([{"mode": mode} for mode in ["0444", "0400", *writable]]))
    return item


def changed_volume(draw: Draw, item: dict[str, Any], there: Any, host: Host) -> dict[str, Any]:
    """A volume that is there, as it is or otherwise, in what can change."""
    item["format"] = there.format
    # qemu-img can't grow an overlay of compat 0.10 below which its base goes on
    if draw(st.booleans()) and not there.immutable and not (there.backing and there.compat == "0.10"):
        larger = [
            size for size in SIZES if rounded(bytes_of(size), 1 if there.format == "raw" else 512) >= there.capacity
        ]
        if larger:
            item["capacity"] = draw(st.sampled_from(larger))
    sometimes(draw, item, "immutable", st.booleans())
    if there.format == "qcow2":
        sometimes(draw, item, "cluster_size", st.just(str(there.cluster)))
        sometimes(draw, item, "compat", st.just(there.compat))
        sometimes(draw, item, "lazy_refcounts", st.just(there.lazy))
    stays = item.get("immutable", there.immutable)
    if not there.immutable and not stays and draw(st.booleans()):
        item["permissions"] = {"mode": draw(st.sampled_from(["0600", "0640"]))}
    return item


@st.composite
def layouts(draw: Draw, root: Path, host: Host) -> dict[str, Any]:
    """A layout that the host can come to from where it is."""
    layout: dict[str, Any] = {"secrets": [], "pools": [], "volumes": [], "prune": draw(st.booleans())}
    for key in draw(st.lists(st.sampled_from([*SECRETS, LUKS_SECRET]), unique=True, max_size=3)):
        gone = key in host.secrets and draw(st.integers(0, 3)) == 0
        layout["secrets"].append(
            {"usage": key[0], "usage_name": key[1], "state": "absent"} if gone else secret(draw, key, host)
        )
    layout["pools"] = [pool(draw, name, root, host) for name in draw(st.permutations(POOLS))[: draw(st.integers(1, 3))]]
    ahead = host.after({**layout, "volumes": []})
    overlays = {one.backing for one in host.files.values()}
    bases: list[tuple[str, str]] = []
    for name, there in ahead.pools.items():
        if not there.active:
            continue
        for short in draw(st.lists(st.sampled_from(VOLUMES), unique=True, max_size=4)):
            path = f"{there.path}/{short}"
            old = host.files.get(path)
            listed = name in host.pools and host.pools[name].active
            if old and listed and path not in overlays and not old.immutable and draw(st.integers(0, 3)) == 0:
                layout["volumes"].append({"pool": name, "name": short, "state": "absent"})
                continue
            item = volume(draw, name, short, host, bases, path)
            if item.get("backing"):
                below = next(one for one in layout["volumes"] if (one["pool"], one["name"]) == base_of(item))
                item["backing"]["format"] = below.get("format", "qcow2" if below.get("backing") else "raw")
            layout["volumes"].append(item)
            bases.append((name, short))
    layout["volumes"] = draw(st.permutations(layout["volumes"]))
    remove_pools(draw, layout, host, overlays)
    return layout


def remove_pools(draw: Draw, layout: dict[str, Any], host: Host, overlays: set[Any]) -> None:
    """Now and then a pool of the host goes, alone or with its data, if no volume is declared in it."""
    used = {item["pool"] for item in layout["volumes"]} | {
        base_of(item)[0] for item in layout["volumes"] if base_of(item)
    }  # type: ignore[index]
    for position, item in enumerate(layout["pools"]):
        there = host.pools.get(item["name"])
        if there is None or item["name"] in used or draw(st.integers(0, 2)):
            continue
        layout["pools"][position] = {"type": "dir", "name": item["name"], "state": "absent"}
        inside = [path for path in host.files if path.startswith(f"{there.path}/")]
        kept = any(host.files[path].immutable or path in overlays for path in inside)
        if not kept and draw(st.booleans()):
            layout["pools"][position]["delete_data"] = True
