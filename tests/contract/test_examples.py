# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The contract of every module, carried out with the EXAMPLES of its own file.

For each example, after those before it: the prediction changes nothing; the run does what was predicted; the next run
does nothing; the removal undoes it; libvirt's schema takes the XML. A new module is found by its file.
"""

from __future__ import annotations

import base64
import functools
import grp
import os
import pwd
import uuid
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import fields, pool, secret, volume, xmltree
from ansible_collections.kvm.storage.plugins.module_utils.backends import registry
from tests.contract import examples
from tests.contract.files import Files
from tests.contract.hosts import Host, check_schema
from tests.contract.run import backend_of, run

# Of these types no server or adapter can be had on one machine: nothing but the test driver ever runs their examples.
TEST_DRIVER_ONLY = {
    "pool_mpath": "no multipath devices here; the lab has them",
    "pool_scsi": "no SCSI host adapter, and no Fibre Channel one",
    "pool_vstorage": "Virtuozzo Storage is not packaged for this system",
}
# What needs a kernel of its own, and the scenario of the lab that runs it.
LAB_ONLY = {"Make a disk in the thin pool of a volume group": "test_thin.py"}
# What needs another host, and the test that runs it.
OTHER_HOST = {"Give it to another hypervisor": "test_volume_handover.py"}
KEY = base64.b64encode(bytes(range(28))).decode()
INFO = "_info"
# What a diff shows besides options.
SHOWN = {
    "volume_convert": {"domains", "compression_type"},
    "volume_migrate": {"domains"},
    "volume_download": {"content"},
    "volume_upload": {"content"},
    "volume_snapshot": {"snapshots", "content"},
}
# What is done again by a second run, since it is an action and no state, and why.
AGAIN: dict[str, str] = {
    "volume_wipe": "no look at a volume tells whether what it held can still be found",
    "Let it grow by 10 GiB each time this runs, unless its pool would promise too much": "a difference",
}
# Modules besides volume that make volumes.
MAKES_VOLUMES = {"volume_clone", "volume_upload"}
# Modules that make nothing which could be removed: they change a volume that is there.
CHANGES_ONLY: set[str] = {"volume_convert", "volume_migrate", "volume_download"}


def runnable(path: Path) -> list[examples.Task]:
    """The examples of a module without those that need the lab or another host."""
    return [task for task in examples.tasks(path) if task.name not in {**LAB_ONLY, **OTHER_HOST}]


def stories(without: set[str] = frozenset()) -> list[Any]:  # type: ignore[assignment]
    """(file, number of the example) of every example of a module that changes something."""
    found = []
    for path in examples.files():
        for number, task in enumerate(runnable(path)):
            if task.module == path.stem and not path.stem.endswith(INFO) and path.stem not in without:
                suffix = "-".join([path.stem, str(number), *map(str, task.variables.values())])
                found.append(pytest.param(path, number, id=suffix))
    return found


class Story:
    """The examples of one module on one host, from the first to the one that is looked at."""

    def __init__(self, path: Path, request: pytest.FixtureRequest) -> None:
        self.path, self.tasks, self.request = path, runnable(path), request
        self.backend = backend_of(path)
        self.listeners = request.getfixturevalue("listeners")
        if self.backend is not None:
            self.host: Host = request.getfixturevalue("test_host")(secrets_named_in([task.args for task in self.tasks]))
        else:
            self.host = request.getfixturevalue("real_host")
            self.make_pools()
        self.variables: dict[str, Any] = {}

    def make_pools(self) -> None:
        """The pools that the examples of a volume take as given."""
        tasks = [task.args for task in self.tasks if task.module.startswith("volume")]
        for name in sorted(named_in(tasks, "pool")):
            path = self.directory(f"/srv/{name}")
            os.makedirs(path)
            self.host.raw.storagePoolDefineXML(
                f"<pool type='dir'><name>{name}</name><target><path>{path}</path></target></pool>"
            ).create(0)

    @functools.cached_property
    def files(self) -> Files:
        """The images that the examples take as given, and the server that they are got from."""
        made = Files(Path(self.host.scratch) / "files")
        self.request.addfinalizer(made.close)
        return made

    def directory(self, path: str) -> str:
        return f"{self.host.scratch}/{path.strip('/').replace('/', '-')}"

    def args(self, task: examples.Task) -> dict[str, Any]:
        """The arguments of an example on this host."""
        found = examples.rendered(task.args, {**self.variables, **task.variables})
        if task.module.startswith("pool_"):
            return self.pool_args(self.backend, found)
        if task.module == "secret":
            return self.secret_args(found)
        if task.module == "volume_upload":
            return self.files.args(found)
        if "dest" in found:
            folder = self.directory(os.path.dirname(found["dest"]))
            os.makedirs(folder, exist_ok=True)
            found["dest"] = f"{folder}/{os.path.basename(found['dest'])}"
        if task.module == "layout":
            return {
                **found,
                "secrets": [self.secret_args(one) for one in found.get("secrets", [])],
                "pools": [self.pool_args(registry.backend(one["type"]), one) for one in found.get("pools", [])],
            }
        return found

    def pool_args(self, backend: Any, args: dict[str, Any]) -> dict[str, Any]:
        """Directories and devices below the scratch directory, servers at loopback addresses, this user's names."""
        found = dict(args)
        if backend.makes_directory and "path" in found and not found["path"].startswith(str(self.host.scratch)):
            found["path"] = self.directory(found["path"])
        for name, place in (("device", str), ("devices", list)):
            if name in found:
                there = [self.directory(one) for one in ([found[name]] if place is str else found[name])]
                for one in there:
                    Path(one).touch()
                found[name] = there[0] if place is str else there
        if "hosts" in found:
            found["hosts"] = [{**one, "name": self.listeners.address(one["name"])} for one in found["hosts"]]
            for address, port in backend.servers(fields.clean("example", backend.fields, fields.given(found))):
                self.listeners.listen(address, port)
        owner, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
        if "permissions" in found:
            mine = {"owner": owner, "group": group}
            found["permissions"] = {name: mine.get(name, value) for name, value in found["permissions"].items()}
        return found

    def secret_args(self, args: dict[str, Any]) -> dict[str, Any]:
        found = dict(args)
        if found.get("usage") == "ceph" and "value" in found:
            found["value"] = KEY
        if "keyring_file" in found:
            found["keyring_file"] = self.directory("keyring")
            Path(found["keyring_file"]).write_text(f"[client.libvirt]\nkey = {KEY}\n", encoding="utf-8")
        return found

    def tell(self, number: int) -> dict[str, Any]:
        """Carry out the examples before the one with a number (of pools: of the same one), and answer its arguments."""
        own = self.args(self.tasks[number]).get("name")
        for task in self.tasks[:number]:
            if task.module and (self.backend is None or self.args(task)["name"] == own):
                result = run(self.host, task.module, self.args(task))
                assert "failed" not in result, f"{task.name}: {result['msg']}"
                if task.register:
                    self.variables[task.register] = result
        return self.args(self.tasks[number])


@pytest.fixture
def story(request: pytest.FixtureRequest) -> Story:
    return Story(request.node.callspec.params["path"], request)


def named_in(value: Any, key: str) -> set[str]:
    """Every text that stands under a key, at any depth."""
    if isinstance(value, list):
        return set().union(*(named_in(one, key) for one in value))
    if not isinstance(value, dict):
        return set()
    own = {one for name, one in value.items() if name == key and isinstance(one, str)}
    return own.union(*(named_in(one, key) for one in value.values()))


def secrets_named_in(value: Any) -> set[str]:
    """The names and UUIDs of the secrets that examples take as given."""
    if isinstance(value, list):
        return set().union(*map(secrets_named_in, value))
    if not isinstance(value, dict):
        return set()
    own = {one for name, one in value.items() if name in ("secret_usage", "secret_uuid")}
    return own.union(*(secrets_named_in(one) for one in value.values()))


def told(result: dict[str, Any]) -> dict[str, Any]:
    """What a prediction and a run must have in common."""
    return {name: result.get(name) for name in ("changed", "actions", "diff", "plan", "restart_needed", "msg")}


@pytest.mark.parametrize(("path", "number"), stories())
def test_example(path: Path, number: int, story: Story) -> None:
    args = story.tell(number)
    name = path.stem
    predicted = run(story.host, name, args, check=True)
    assert "failed" not in predicted, predicted["msg"]
    result = run(story.host, name, args)
    assert "failed" not in result, result["msg"]
    assert told(result) == told(predicted)
    assert result["changed"], "an example that changes nothing at its place shows nothing"
    assert result["changed"] == bool(result["actions"]) == bool(story.host.writes or result["diff"])
    check_diff(story, result["diff"])
    check_documented(path, result)
    check_state(story, name, args)
    check_nothing_shown(args, predicted, result)
    again = run(story.host, name, args)
    if name in AGAIN or story.tasks[number].name in AGAIN:
        assert (again["changed"], again["actions"]) == (True, result["actions"])
        return
    assert (again["changed"], again["actions"], again["diff"]) == (False, [], [])
    assert story.host.writes == []


@pytest.mark.parametrize(("path", "number"), stories(CHANGES_ONLY))
def test_removal_undoes_it(path: Path, number: int, story: Story) -> None:
    args = story.tell(number)
    result = run(story.host, path.stem, args)
    assert "failed" not in result, result["msg"]
    for name, absent in removals(path.stem, args):
        predicted = run(story.host, name, absent, check=True)
        result = run(story.host, name, absent)
        assert "failed" not in result, result["msg"]
        assert told(result) == told(predicted)
        check_state(story, name, absent)
        again = run(story.host, name, absent)
        assert (again["changed"], again["actions"]) == (False, [])


def removals(name: str, args: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The modules, with their arguments, that take away what an example made."""
    if name in MAKES_VOLUMES:
        made = args["clones"] if args.get("clones") else [args]
        return [("volume", removal("volume", {"pool": args["pool"], "name": one["name"]})) for one in made]
    if name.startswith("volume_"):
        return [("volume", removal("volume", args))]
    return [(name, removal(name, args))]


def removal(name: str, args: dict[str, Any]) -> dict[str, Any]:
    """The arguments that take away what an example made."""
    if name == "secret":
        return {"usage": args["usage"], "usage_name": args["usage_name"], "state": "absent"}
    if name == "volume":
        return {"pool": args["pool"], "name": args["name"], "state": "absent", "immutable": False}
    if name == "layout":
        return {
            "secrets": [removal("secret", one) for one in args.get("secrets", [])],
            "volumes": [
                {**removal("volume", one), **{key: one[key] for key in ("count", "first") if key in one}}
                for one in args.get("volumes", [])
            ],
            "pools": [{"type": one["type"], "name": one["name"], "state": "absent"} for one in args.get("pools", [])],
        }
    return {"name": args["name"], "state": "absent"}


def check_diff(story: Story, diff: list[dict[str, str]]) -> None:
    """There is one, and its lines are options (or a step that has none), never XML."""
    assert diff
    assert diff[-1]["prepared"].startswith("plan: ")
    known = {"state", "persistent", "autostart", "usage", "uuid", "value", "pool"} | set(volume.argument_spec())
    known |= set(secret.argument_spec()) | set(examples.part(story.path, "DOCUMENTATION").get("options", {}))
    known |= SHOWN.get(story.path.stem, set())
    for backend in map(registry.backend, registry.types()):
        known |= set(pool.argument_spec(backend))
    for one in diff[:-1]:
        assert one["before"] != one["after"]
        for line in (one["before"] + one["after"]).splitlines():
            option, colon, value = line.partition(":")
            assert colon
            assert option in known or value.strip() == "done", line
            assert "<" not in line


def check_documented(path: Path, result: dict[str, Any]) -> None:
    """RETURN names every key of the result, and the result has every key that RETURN promises."""
    documented = examples.part(path, "RETURN")
    own = {"changed", "invocation", "warnings", "deprecations", "diff"}
    assert set(result) - own - set(documented) == set()
    promised = {name for name, about in documented.items() if about["returned"] in ("always", "success")}
    assert promised - set(result) == set()


def check_nothing_shown(args: dict[str, Any], *results: dict[str, Any]) -> None:
    """No value of a secret in any result."""
    values = [
        one[name] for one in [args, *args.get("secrets", [])] for name in ("value", "value_base64") if name in one
    ]
    for value in [*values, KEY]:
        assert all(value not in repr(result) for result in results)


def check_state(story: Story, name: str, args: dict[str, Any]) -> None:
    """Every declared field, as libvirt itself says."""
    raw = story.host.raw
    if name == "layout":
        for kind, items in (("secret", "secrets"), ("volume", "volumes")):
            for one in args.get(items, []):
                for each in [one] if "count" not in one else numbered(one):
                    check_state(story, kind, each)
        for one in args.get("pools", []):
            check_pool(story.host, registry.backend(one["type"]), one)
    elif name == "secret":
        check_secret(raw, args)
    elif name == "volume":
        check_volume(raw, args)
    elif name in MAKES_VOLUMES:
        for one in args["clones"] if args.get("clones") else [args]:
            check_volume(raw, {**args, **one})
    elif name.startswith("volume_"):
        return  # what it did is for its own tests to see
    else:
        check_pool(story.host, story.backend, args)


def numbered(item: dict[str, Any]) -> list[dict[str, Any]]:
    first = item.get("first", 1)
    return [{**item, "name": item["name"] % number} for number in range(first, first + item["count"])]


def check_pool(host: Host, backend: Any, args: dict[str, Any]) -> None:
    found = {one.name(): one for one in host.raw.listAllStoragePools(0)}.get(args["name"])
    state = args.get("state", "active")
    assert (found is None) == (state == "absent")
    if found is None:
        return
    assert bool(found.isActive()) == (state == "active")
    assert bool(found.isPersistent()) == args.get("persistent", True)
    if "autostart" in args:
        assert bool(found.autostart()) == args["autostart"]
    text = host.definition(found)
    check_schema("storagepool", text)
    wanted = fields.clean("example", backend.fields, fields.given(args))
    if "permissions" in wanted:
        mode = wanted.pop("permissions").get("mode")
        path = xmltree.get(xmltree.parse(text), "target/path")
        if backend.makes_directory and mode is not None and os.path.isdir(path):
            assert f"{os.stat(path).st_mode & 0o777:04o}" == mode
    have = fields.read(backend.fields, xmltree.parse(text))
    assert fields.differing(backend.fields, have, wanted) == []
    assert uuid.UUID(found.UUIDString()).version == 5


def check_secret(raw: Any, args: dict[str, Any]) -> None:
    kind = secret.USAGES[args["usage"]][0]
    every = [one for one in raw.listAllSecrets(0) if (one.usageType(), one.usageID()) == (kind, args["usage_name"])]
    assert len(every) == (0 if args.get("state") == "absent" else 1)
    for found in every:
        check_schema("secret", found.XMLDesc(0))
        tree = xmltree.parse(found.XMLDesc(0))
        wanted = fields.clean("example", secret.FIELDS, fields.given(args))
        assert fields.differing(secret.FIELDS, fields.read(secret.FIELDS, tree), wanted) == []
        if not args.get("private"):
            value = base64.b64decode(KEY) if args["usage"] == "ceph" else args["value"].encode()
            assert found.value(0) == value


def check_volume(raw: Any, args: dict[str, Any]) -> None:
    pools = {one.name(): one for one in raw.listAllStoragePools(0)}
    found = None
    if args["pool"] in pools:
        pools[args["pool"]].refresh(0)
        found = {one.name(): one for one in pools[args["pool"]].listAllVolumes(0)}.get(args["name"])
    assert (found is None) == (args.get("state") == "absent")
    if found is None:
        return
    check_schema("storagevol", found.XMLDesc(0))
    tree = xmltree.parse(found.XMLDesc(0))
    wanted = fields.clean("example", volume.FIELDS, fields.given(args))
    have = fields.read(volume.FIELDS, tree)
    assert fields.differing(volume.FIELDS, have, {name: wanted[name] for name in wanted if name != "permissions"}) == []
    if "mode" in wanted.get("permissions", {}):
        assert f"{os.stat(found.path()).st_mode & 0o777:04o}" == wanted["permissions"]["mode"]
    backing = xmltree.get(tree, "backingStore/path")
    assert (os.path.basename(backing) if backing else None) == args.get("backing", {}).get(
        "volume", os.path.basename(backing or "") or None
    )
    if "backing" in args:
        assert xmltree.get(tree, "backingStore/format/@type") == args["backing"].get("format", "qcow2")


INFO_HOST = next(path for path in examples.files() if path.stem == "layout")


@pytest.mark.parametrize(
    "path", [path for path in examples.files() if path.stem.endswith(INFO)], ids=lambda path: path.stem
)
def test_info(path: Path, request: pytest.FixtureRequest) -> None:
    """What only reads is read on a host with storage, changes nothing and returns what its documentation says."""
    story = Story(INFO_HOST, request)
    made = run(story.host, "layout", story.args(story.tasks[0]))
    assert "failed" not in made, made["msg"]
    variables: dict[str, Any] = {}
    for task in examples.tasks(path):
        if not task.module:
            continue
        args = examples.rendered(task.args, variables)
        for check in (True, False):
            result = run(story.host, task.module, args, check=check)
            assert "failed" not in result, result["msg"]
            assert result["changed"] is False
            assert story.host.writes == []
        if task.register:
            variables[task.register] = result
        if task.module == path.stem:
            check_documented(path, result)
            for name, about in examples.part(path, "RETURN").items():
                if name in result or about["returned"] == "success":
                    check_contains(name, about, result[name])


def check_contains(name: str, about: dict[str, Any], value: Any) -> None:
    """The type that is documented, and with contains every key at any depth."""
    types = {"list": list, "dict": dict, "str": str, "bool": bool, "int": int, "float": (float, int)}
    assert value is None or isinstance(value, types[about["type"]]), name
    if "contains" not in about or value is None:
        return
    for one in value if isinstance(value, list) else [value]:
        readable = {f"{key}_readable" for key in about["contains"]}  # beside every size in bytes
        assert set(one) - set(about["contains"]) - readable == set(), f"{name} has keys that RETURN does not name"
        for key, inner in about["contains"].items():
            if key in one:
                check_contains(f"{name}.{key}", inner, one[key])


def test_what_only_the_test_driver_runs_is_there() -> None:
    assert set(TEST_DRIVER_ONLY) <= {path.stem for path in examples.files()}


def test_what_only_the_lab_runs_is_there() -> None:
    names = {task.name for path in examples.files() for task in examples.tasks(path)}
    assert set(LAB_ONLY) <= names
    for name in LAB_ONLY.values():
        assert "examples.tasks(" in (examples.ROOT / "tests/lab/scenarios" / name).read_text(encoding="utf-8")


def test_what_needs_another_host_is_run_by_its_test() -> None:
    names = {task.name for path in examples.files() for task in examples.tasks(path)}
    assert set(OTHER_HOST) <= names
    for name, file in OTHER_HOST.items():
        assert f'"{name}"' in (examples.ROOT / "tests/integration" / file).read_text(encoding="utf-8")


def test_every_pool_module_has_a_backend() -> None:
    names = {path.stem for path in examples.files() if path.stem.startswith("pool_") and not path.stem.endswith(INFO)}
    assert names == {registry.backend(one).module for one in registry.types()}
