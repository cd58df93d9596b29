# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Layouts: the secrets, pools and volumes of one host, in one task and over one connection."""

from __future__ import annotations

import re
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from . import pool as pools
from . import reconcile, xmltree
from . import secret as secrets
from . import volume as volumes
from .backends import registry
from .connection import volume_xml
from .errors import StorageError
from .guards import same_storage
from .names import own_uuid
from .plan import Thing

DEFAULT_OWNER = "layout"
# O(count) writes numbers into the name at the place that %d or %03d marks.
NUMBER_PLACE = re.compile(r"%0?\d*d", re.ASCII)
MOST_VOLUMES = 1_000_000
PRUNED_USAGES = ("ceph", "iscsi", "tls", "vtpm")  # never volume: a LUKS volume without its secret is lost


def argument_spec() -> dict[str, Any]:
    """The options of a layout. Pools and volumes are validated by their own specs, each item by its type."""
    return {
        "secrets": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": secrets.argument_spec(),
            "no_log": False,
            **secrets.RULES,
        },
        "pools": {"type": "list", "elements": "dict", "default": []},
        "volumes": {"type": "list", "elements": "dict", "default": []},
        "owner": {"type": "str", "default": DEFAULT_OWNER},
        "prune": {"type": "bool", "default": False},
        reconcile.PREDICTING: {"type": "list", "elements": "str", "default": []},
        "return_all": {"type": "bool", "default": False},
    }


def is_a(value: Any, kind: type) -> bool:
    """Whether a value is of a type, where a boolean is no number."""
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


class Validator:
    """Items of one kind against their argument_spec.

    What has the right types already is only completed with defaults; everything else goes to
    Ansible's own validator, which converts it or says what is wrong.
    """

    TYPES = {"str": str, "bool": bool, "int": int}  # not path: Ansible expands ~ and variables there

    def __init__(self, spec: dict[str, Any], module: str = "layout") -> None:
        self.validator = ArgumentSpecValidator(spec)
        self.way_out = f"'ansible-doc kvm.storage.{module}' describes every option"
        self.defaults = {name: option.get("default") for name, option in spec.items()}
        self.plain = {
            name: (self.TYPES[option["type"]], frozenset(option.get("choices") or ()))
            for name, option in spec.items()
            if option["type"] in self.TYPES
        }
        self.required = [name for name, option in spec.items() if option.get("required")]
        self.nested = [name for name, option in spec.items() if "options" in option]

    def is_plain(self, item: dict[str, Any]) -> bool:
        for name, value in item.items():
            known = self.plain.get(name)
            if known is None or not is_a(value, known[0]) or (known[1] and value not in known[1]):
                return False
        return all(name in item for name in self.required)

    def __call__(self, thing: str, item: dict[str, Any]) -> dict[str, Any]:
        if self.is_plain(item):
            return {**self.defaults, **item}
        try:
            result = self.validator.validate(item)
        except TypeError:  # Ansible's own, for a number or a truth value where a dictionary belongs
            names = ", ".join(name for name in self.nested if item.get(name) is not None)
            raise StorageError(
                thing=thing,
                code="bad_value",
                reason=f"a dictionary is expected, look at {names}",
                way_out=self.way_out,
            ) from None
        if result.error_messages:
            unknown = ", ".join(sorted(map(str, result.unsupported_parameters)))
            reason = f"there is no option {unknown}" if unknown else "; ".join(result.error_messages)
            raise StorageError(thing=thing, code="bad_value", reason=reason, way_out=self.way_out)
        return result.validated_parameters


def label_of(kind: str, position: int, item: dict[str, Any]) -> str:
    """An item before it is known to be one: volumes[3] (web01)."""
    name = item.get("name") or item.get("usage_name")
    return f"{kind}[{position}]" + (f" ({name!r})" if name else "")


class Collector:
    """Every error of a declaration at once, rather than one a run."""

    def __init__(self) -> None:
        self.errors: list[StorageError] = []

    def __call__(self, make: Any) -> Any:
        try:
            return make()
        except StorageError as error:
            self.errors.append(error)
            return None

    def add(self, **error: str) -> None:
        self.errors.append(StorageError(**error))

    def finish(self) -> None:
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            text = "\n".join(str(error) for error in self.errors[: reconcile.MOST_ERRORS])
            raise StorageError(
                thing="layout",
                code=self.errors[0].code,
                reason=f"{len(self.errors)} items are invalid and nothing was changed:\n{text}",
            )


def numbered(item: dict[str, Any], label: str) -> list[dict[str, Any]]:
    """The volumes that one item with a count stands for; the item itself where it has none."""
    if "count" not in item:
        return [item]
    # templates of ansible-core 2.18 give text
    count, first = (int(one) if str(one).isdecimal() else one for one in (item["count"], item.get("first", 1)))
    name = str(item.get("name", ""))
    if not is_a(count, int) or not is_a(first, int) or not 0 <= count <= MOST_VOLUMES or first < 0:
        raise StorageError(
            thing=label,
            code="bad_value",
            reason=f"count and first must be numbers, at most {MOST_VOLUMES}",
            way_out="write them without quotes, such as count: 40",
        )
    if len(NUMBER_PLACE.findall(name)) != 1:
        raise StorageError(
            thing=label,
            code="bad_value",
            reason=f"with count, the name {name!r} must say where the number goes",
            way_out="write %d or %03d once, such as web%03d.qcow2",
        )
    before, mark, after = re.split(f"({NUMBER_PLACE.pattern})", name)
    if len(mark) > 5:
        raise StorageError(
            thing=label, code="bad_value", reason=f"{mark} has too many digits", way_out="use at most %099d"
        )
    rest = {key: value for key, value in item.items() if key not in ("count", "first", "name")}
    return [{**rest, "name": f"{before}{mark % number}{after}"} for number in range(first, first + count)]


def pool_items(given: list[dict[str, Any]], collect: Collector) -> list[tuple[Any, dict[str, Any]]]:
    """(backend, validated options) of every declared pool."""
    validators: dict[str, Validator] = {}
    found = []
    for position, item in enumerate(given):
        label = label_of("pools", position, item)
        type_name = str(item.get("type", "")).replace("_", "-")
        backend = registry.backend(type_name)
        if backend is None:
            collect.add(
                thing=label,
                code="bad_value",
                reason=f"type can't be {item.get('type')!r}",
                way_out=f"give one of {', '.join(registry.types())}",
            )
            continue
        if type_name not in validators:
            validators[type_name] = Validator(pools.argument_spec(backend), backend.module)
        options = {key: value for key, value in item.items() if key != "type"}
        checked = collect(lambda: validators[type_name](label, options))  # noqa: B023  called at once
        if checked is not None:
            found.append((backend, checked))
    return found


def volume_items(given: list[dict[str, Any]], collect: Collector) -> list[dict[str, Any]]:
    """The validated options of every declared volume, counts written out."""
    validator = Validator(volumes.argument_spec(), "volume")
    found = []
    for position, item in enumerate(given):
        label = label_of("volumes", position, item)
        for one in collect(lambda: numbered(item, label)) or []:  # noqa: B023  called at once
            checked = collect(lambda: validator(label, one))  # noqa: B023  called at once
            if checked is not None:
                found.append(checked)
    return found


class Layout:
    """The things of a declaration with what each of them needs."""

    def __init__(self, connection: Any, params: dict[str, Any]) -> None:
        self.connection, self.params, self.owner = connection, params, params["owner"]
        self.collect = Collector()
        self.secrets: list[secrets.Secret] = []
        self.pools: dict[str, pools.Pool] = {}
        self.volumes: dict[tuple[str, str], volumes.Volume] = {}

    def build(self) -> list[Thing]:
        """Everything in the order of its turn; every invalid item is refused here, before anything is read."""
        for options in self.params["secrets"]:
            self.collect(lambda: self.add_secret(options))  # noqa: B023  called at once
        for backend, options in pool_items(self.params["pools"], self.collect):
            self.collect(lambda: self.add_pool(backend, options))  # noqa: B023  called at once
        for options in volume_items(self.params["volumes"], self.collect):
            self.collect(lambda: self.add_volume(options))  # noqa: B023  called at once
        self.check_sources()
        self.collect.finish()
        self.link()
        ordered = self.ordered_volumes()
        self.collect.finish()
        making = [one for one in self.secrets if one.want["state"] == "present"]
        leaving = [one for one in self.secrets if one.want["state"] == "absent"]
        up = [one for one in self.pools.values() if one.want["state"] != "absent"]
        down = [one for one in self.pools.values() if one.want["state"] == "absent"]
        gone = self.ordered_removals([one for one in ordered if one.want["state"] == "absent"])
        made = [one for one in ordered if one.want["state"] == "present"]
        pruned_pools, pruned_secrets = self.pruned() if self.params["prune"] else ([], [])
        self.tell_secrets([*down, *pruned_pools], [*leaving, *pruned_secrets])
        return [*making, *up, *made, *gone, *down, *pruned_pools, *leaving, *pruned_secrets]

    def add_secret(self, options: dict[str, Any]) -> None:
        one = secrets.Secret(self.connection, secrets.wanted(options, self.owner))
        if any(other.name == one.name and other.want["usage"] == one.want["usage"] for other in self.secrets):
            raise twice(one)
        self.secrets.append(one)

    def add_pool(self, backend: Any, options: dict[str, Any]) -> None:
        one = pools.Pool(self.connection, backend, pools.wanted(backend, options, self.owner))
        if one.name in self.pools:
            raise twice(one)
        one.expected = one.name in self.params[reconcile.PREDICTING]
        self.pools[one.name] = one

    def add_volume(self, options: dict[str, Any]) -> None:
        want = volumes.wanted(options)
        planned = self.pools.get(want["pool"])
        one = volumes.Volume(self.connection, want, planned.backend if planned else None, planned)
        if (one.pool_name, one.volume_name) in self.volumes:
            raise twice(one)
        if planned is not None and planned.want["state"] != "active" and want["state"] == "present":
            raise StorageError(
                thing=one.label,
                code="pool_inactive",
                reason=f"its pool is declared {planned.want['state']}",
                way_out="declare the pool active, or leave the volume out",
            )
        if planned is None and one.connection.pool(one.pool_name) is None and want["state"] == "absent":
            return  # no pool, no volume
        self.volumes[one.pool_name, one.volume_name] = one
        one.backend  # noqa: B018  an unknown pool is refused now

    def check_sources(self) -> None:
        """Two declared pools on one storage; libvirt's own pools are looked at when each is decided."""
        declared = [one for one in self.pools.values() if one.want["state"] != "absent"]
        by_path: dict[str, str] = {}
        for position, one in enumerate(declared):
            options = one.want["options"]
            path = options.get("path")
            if one.backend.makes_directory and path is not None:
                if path in by_path:
                    self.collect.add(
                        thing=one.label,
                        code="path_conflict",
                        reason=f"pool {by_path[path]!r} has the path {path} too",
                        way_out="give each pool a directory of its own",
                    )
                by_path[path] = one.name
            for other in declared[:position]:
                if other.backend.type == one.backend.type and same_storage(one.backend, other.want["options"], options):
                    self.collect.add(
                        thing=one.label,
                        code="source_conflict",
                        reason=f"pool {other.name!r} stands on the same storage",
                        way_out="declare the storage once",
                    )

    def link(self) -> None:
        """Pools and encrypted volumes need their secrets."""
        by_name: dict[str | None, secrets.Secret] = {}
        for secret in self.secrets:
            by_name[secret.name] = secret
            if secret.want["uuid"]:
                by_name[secret.want["uuid"]] = secret
        planned = frozenset(name for name, secret in by_name.items() if secret.want["state"] == "present")
        users: list[Any] = [*self.pools.values(), *self.volumes.values()]
        for one in users:
            one.want["secrets_planned"] = planned
            login = one.want["options"].get("auth") or one.want["options"].get("encryption") or {}
            needed = by_name.get(login.get("secret_usage") or login.get("secret_uuid"))
            if needed is not None and needed.want["state"] == "present":
                one.needs.append(needed)
        self.link_volumes()

    def link_volumes(self) -> None:
        """Volumes need their pool and their backing volume, and numbered ones those before them."""
        self.link_numbered()
        for one in self.volumes.values():
            if one.planned_pool is not None and one.planned_pool.want["state"] == "active":
                one.needs.append(one.planned_pool)
            backing = one.want["backing"]
            base = self.volumes.get((backing.get("pool"), backing.get("volume"))) if backing else None
            if base is not None:
                if base.want["state"] == "absent" and one.want["state"] == "present":
                    self.collect.add(
                        thing=one.label,
                        code="bad_backing",
                        reason=f"its backing store {base.name} is declared absent",
                        way_out="keep the base, or remove both",
                    )
                one.planned_backing = base
                if one.want["state"] == "present":
                    one.needs.append(base)
            self.link_source(one)

    def link_source(self, one: volumes.Volume) -> None:
        """A clone comes after its source; one that is there already no longer needs it."""
        given = one.want["source"]
        source = self.volumes.get((given.get("pool"), given.get("volume"))) if given else None
        if source is None or one.want["state"] == "absent":
            return
        if source.want["state"] == "present":
            one.planned_source = source
            one.needs.append(source)

    def link_numbered(self) -> None:
        """Partitions get their names in the order in which they are made."""
        before: dict[str, list[volumes.Volume]] = {}
        for one in self.volumes.values():
            if one.backend.numbered and one.want["state"] == "present":
                earlier = before.setdefault(one.pool_name, [])
                one.earlier = [other.volume_name for other in earlier]
                one.needs += earlier[-1:]
                earlier.append(one)

    def ordered_volumes(self) -> list[volumes.Volume]:
        """Backing volumes before their overlays and sources before their clones, else as declared; no circles."""
        ordered: list[volumes.Volume] = []
        done: set[int] = set()
        for start in self.volumes.values():
            trail: list[volumes.Volume] = []
            one: volumes.Volume | None = start
            while one is not None and id(one) not in done:
                if one in trail:
                    names = ", ".join(member.name for member in trail[trail.index(one) :])
                    self.collect.add(
                        thing=one.label,
                        code="bad_backing",
                        reason=f"its backing chain is a circle ({names})",
                        way_out="let one of them stand alone",
                    )
                    return ordered
                trail.append(one)
                one = one.planned_backing or one.planned_source
            for member in reversed(trail):
                done.add(id(member))
                ordered.append(member)
        return ordered

    def expect_volumes(self) -> None:
        """Tell the connection what will be read, pool by pool."""
        names: dict[str, list[str]] = {}
        for pool, name in self.volumes:
            names.setdefault(pool, []).append(name)
        for pool, expected in names.items():
            self.connection.expect(pool, expected)

    def ordered_removals(self, gone: list[volumes.Volume]) -> list[volumes.Volume]:
        """Overlays before the volumes that they stand on, as libvirt knows them."""
        leaving = frozenset(one.name for one in gone)
        by_path = {one.handle.path(): one for one in gone if one.handle is not None}
        depth: dict[int, int] = {}
        for one in gone:
            one.want["leaving"] = leaving
            below, trail = self.stands_on(one, by_path), {id(one)}
            while below is not None and id(below) not in trail:  # headers can point in a circle
                trail.add(id(below))
                below.needs.append(one)
                depth[id(below)] = max(depth.get(id(below), 0), depth.get(id(one), 0) + 1)
                one, below = below, self.stands_on(below, by_path)  # noqa: PLW2901  down the chain
        return sorted(gone, key=lambda one: depth.get(id(one), 0))

    def stands_on(self, one: volumes.Volume, by_path: dict[str, volumes.Volume]) -> volumes.Volume | None:
        """The leaving volume that is the backing store of another."""
        if one.handle is None or len(by_path) < 2:
            return None
        below = by_path.get(xmltree.get(xmltree.parse(volume_xml(one.handle)), "backingStore/path") or "")
        return below if below is not one else None

    def pruned(self) -> tuple[list[pools.Pool], list[secrets.Secret]]:
        """What this owner's layouts made, known by its uuid, and no longer declare. Volumes and data stay."""
        declared = {(one.want["usage"], one.name) for one in self.secrets}
        gone_pools: list[pools.Pool] = []
        for name, handle in sorted(self.connection.pools().items()):
            if name in self.pools or handle.UUIDString() != own_uuid("pool", name, self.owner):
                continue
            backend = registry.backend(xmltree.parse(handle.XMLDesc(0)).get("type"))
            if backend is not None:
                gone_pools.append(
                    pools.Pool(self.connection, backend, pools.wanted(backend, removal(name, backend), self.owner))
                )
        gone_secrets: list[secrets.Secret] = []
        for handle in self.connection.secrets():
            usage = next((name for name, place in secrets.USAGES.items() if place[0] == handle.usageType()), "")
            name = handle.usageID()
            own = own_uuid("secret", f"{usage}/{name}", self.owner)
            if usage in PRUNED_USAGES and (usage, name) not in declared and handle.UUIDString() == own:
                options = {**dict.fromkeys(secrets.argument_spec()), "usage": usage, "usage_name": name}
                want = secrets.wanted({**options, "state": "absent", "set_value": "never"}, self.owner)
                gone_secrets.append(secrets.Secret(self.connection, want))
        return gone_pools, gone_secrets

    def tell_secrets(self, leaving_pools: list[Any], leaving_secrets: list[Any]) -> None:
        """A secret may go together with the pools that need it."""
        labels = tuple(one.label for one in leaving_pools)
        for one in leaving_secrets:
            one.want["leaving"] = labels
            one.needs += leaving_pools


def removal(name: str, backend: Any) -> dict[str, Any]:
    """The options that stop and undefine a pool and leave its data."""
    defaults = {key: option.get("default") for key, option in pools.argument_spec(backend).items()}
    return {**defaults, "name": name, "state": "absent"}


def twice(thing: Thing) -> StorageError:
    return StorageError(
        thing=thing.label, code="declared_twice", reason="it is declared more than once", way_out="declare it once"
    )


def hidden(params: dict[str, Any]) -> list[str]:
    """The values that must not show."""
    return [value for item in params["secrets"] for value in secrets.hidden(item)]


def things(connection: Any, params: dict[str, Any]) -> list[Thing]:
    """What is wanted; the connection is told which volumes will be read."""
    layout = Layout(connection, params)
    wanted = layout.build()
    layout.expect_volumes()
    return wanted


def run() -> None:
    """The main function of the layout module."""
    reconcile.run(argument_spec(), things, many=True, hidden=hidden)
