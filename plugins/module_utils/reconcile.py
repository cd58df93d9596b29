# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module around the engine: the only place that knows AnsibleModule, check mode and diff."""

from __future__ import annotations

import base64
import contextlib
import json
import traceback
import urllib.parse
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from . import commands, xmltree
from . import connection as connections
from .converge import Outcome, converge, failures
from .errors import StorageError
from .plan import Thing

MOST_ERRORS = 20  # shown in one message
PREDICTING = "expected_pools"  # an option that means something in check mode alone
SHORTEST_LINE = 8  # of a value with several lines; to hide shorter ones would hide half of a result
SYSTEM_PYTHONS = ["/usr/bin/python3", "/usr/libexec/platform-python", "/usr/local/bin/python3"]

CONNECTION_SPEC: dict[str, Any] = {
    "uri": {"type": "str", "default": "qemu:///system"},
}
CHANGE_SPEC: dict[str, Any] = {
    **CONNECTION_SPEC,
    "lock_timeout": {"type": "int", "default": 60},
}


def need_libraries(module: AnsibleModule, needed: bool = True) -> bool:
    """Whether libvirt and lxml are there, under the system's Python if need be; where they are needed, or fail."""
    missing = [name for name, found in (("libvirt", connections.libvirt), ("lxml", xmltree.etree)) if found is None]
    if not missing:
        return True
    from ansible.module_utils.common.respawn import has_respawned, probe_interpreters_for_module, respawn_module

    for interpreter in [] if has_respawned() else SYSTEM_PYTHONS:
        if all(probe_interpreters_for_module([interpreter], name) for name in ("libvirt", "lxml")):
            respawn_module(interpreter)
    if not needed:
        return False
    packages = " ".join(f"python3-{name}" for name in missing)
    module.fail_json(
        msg=f"{missing_required_lib(' and '.join(missing))} Install {packages} on this host.",
        code="missing_library",
    )
    return False


def hide(module: AnsibleModule, values: list[str]) -> None:
    """Hide secret values in every form that a tool might print them in."""
    for value in values:
        raw = value.encode("utf-8", "surrogateescape")
        found = {value, base64.b64encode(raw).decode(), raw.hex(), urllib.parse.quote(raw, safe="")}
        found |= {repr(value)[1:-1], json.dumps(value)[1:-1], " ".join(value.split())}
        found |= {line.strip() for line in value.splitlines() if len(line.strip()) >= SHORTEST_LINE}
        module.no_log_values.update(found - {""})


class CodedModule(AnsibleModule):
    """An AnsibleModule whose own refusals, those of the argument_spec, have a code too."""

    params: dict[str, Any]

    def fail_json(self, msg: str, **details: Any) -> None:
        super().fail_json(msg, **{"code": "bad_value", "actions": [], **details})


class HidingModule(CodedModule):
    """An AnsibleModule that knows what must not show before it writes its invocation to the system's log.

    Core looks for values in the text of a list, where a quote or the end of a line stands escaped.
    """

    def __init__(self, hidden: Callable[[dict[str, Any]], list[str]], **arguments: Any) -> None:
        self.hidden = hidden
        try:
            super().__init__(**arguments)
        except TypeError:  # Ansible's own, for a number or a truth value where a dictionary belongs
            spec, given, self.params = arguments["argument_spec"], self.params, {}  # none of them is hidden yet
            names = ", ".join(name for name in spec if "options" in spec[name] and given.get(name) is not None)
            self.fail_json(f"a dictionary is expected, look at {names}")

    def _log_invocation(self) -> None:
        hide(self, self.hidden(self.params))
        super()._log_invocation()


def run(
    spec: dict[str, Any],
    things: Callable[[connections.Connection, dict[str, Any]], list[Thing]],
    *,
    many: bool | Callable[[dict[str, Any]], bool] = False,
    hidden: Callable[[dict[str, Any]], list[str]] = lambda params: [],
    **rules: Any,
) -> None:
    """The main function of every module that changes something.

    things builds what is wanted from the parameters; many, which may ask them, is for a module with a list of items.
    """
    module = HidingModule(hidden, argument_spec={**CHANGE_SPEC, **spec}, supports_check_mode=True, **rules)
    need_libraries(module)
    commands.use(module.run_command)
    hide(module, hidden(module.params))
    uri = module.params["uri"]
    try:
        with contextlib.closing(connections.Connection.open(uri)) as connection:
            wanted = things(connection, module.params if module.check_mode else {**module.params, PREDICTING: []})
            names = [] if module.check_mode else [name for thing in wanted for name in thing.locks()]
            with connection.locked(names, module.params["lock_timeout"]):
                connection.forget()  # what was seen before the lock may have changed since
                outcomes = converge(wanted, act=not module.check_mode)
    except failures() as error:
        refuse(module, error)
        return
    several = many(module.params) if callable(many) else many
    finish(module, report(outcomes, uri, several, module._diff, bool(module.params.get("return_all"))), outcomes)


def run_info(
    spec: dict[str, Any],
    gather: Callable[[Any, dict[str, Any]], dict[str, Any]],
    *,
    libvirt_needed: bool = True,
    **rules: Any,
) -> None:
    """The main function of every module that only reads; where libvirt is not needed, gather may get None for it."""
    module = CodedModule(argument_spec={**CONNECTION_SPEC, **spec}, supports_check_mode=True, **rules)
    there = need_libraries(module, libvirt_needed)
    there = there and (libvirt_needed or connections.is_served(module.params["uri"]))
    commands.use(module.run_command)
    try:
        if there:
            with contextlib.closing(connections.Connection.open(module.params["uri"])) as connection:
                found = gather(connection, module.params)
        else:
            found = gather(None, module.params)
    except failures() as error:
        refuse(module, error)
        return
    module.exit_json(changed=False, **found)


def refuse(module: AnsibleModule, error: Exception) -> None:
    """Fail before anything has changed."""
    code = getattr(error, "code", "backend_refused")
    message = str(error) if isinstance(error, StorageError) else connections.words(error)
    details = {} if isinstance(error, StorageError) else {"exception": traceback.format_exc()}
    module.fail_json(msg=message, code=code, actions=[], **details)


def finish(module: AnsibleModule, result: dict[str, Any], outcomes: list[Outcome]) -> None:
    """Exit with the result; fail with it where any thing failed."""
    for outcome in outcomes:
        for warning in outcome.plan.warnings:
            module.warn(warning)
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if errors:
        text = "\n".join(str(error) for error in errors[:MOST_ERRORS])
        if len(errors) > MOST_ERRORS:
            text += f"\nand {len(errors) - MOST_ERRORS} more"
        module.fail_json(msg=text, code=errors[0].code, **result)
    module.exit_json(**result)


def report(outcomes: list[Outcome], uri: str, many: bool, diff: bool, every_item: bool) -> dict[str, Any]:
    """What a run or a prediction returns; predicted and real differ in nothing but what failed."""
    actions = [(outcome, step) for outcome in outcomes for step in took(outcome)]
    result: dict[str, Any] = {
        "changed": bool(actions),
        "actions": [f"{outcome.thing.label}: {step}" if many else step for outcome, step in actions],
        "plan": counted(outcomes),
        "restart_needed": any(outcome.plan.restart_needed for outcome in outcomes),
    }
    if many:
        told = [one for one in outcomes if every_item or one.status != "ok" or one.plan.restart_needed]
        result["outcomes"] = [{**item(outcome), **(compared(outcome) if diff else {})} for outcome in told]
    else:
        result.update(outcomes[0].thing.facts())
    if diff:
        result["diff"] = differences(outcomes, uri, result["plan"]["summary"])
    return result


def took(outcome: Outcome) -> list[str]:
    """The steps that were, or in a prediction would be, carried out."""
    if outcome.status == "skipped":
        return []
    return outcome.done if outcome.done or outcome.status == "failed" else outcome.plan.steps


def item(outcome: Outcome) -> dict[str, Any]:
    """One thing of many, as data."""
    found: dict[str, Any] = {
        "kind": outcome.thing.kind,
        "name": outcome.thing.name,
        "status": outcome.status,
        "actions": took(outcome),
        **outcome.thing.facts(),
    }
    if outcome.plan.restart_needed:
        found["restart_needed"] = True
    if outcome.plan.unknown:
        found["unknown"] = outcome.plan.unknown
    if outcome.error is not None:
        found.update(msg=str(outcome.error), code=outcome.error.code)
    return found


def compared(outcome: Outcome) -> dict[str, Any]:
    """What an item's plan compared, as data: what kind of change it is, its risk, and the options that differ."""
    before, after = outcome.plan.before, outcome.plan.after
    options = {}
    for option in sorted({*(before or ()), *(after or ())}):
        have, want = (before or {}).get(option), (after or {}).get(option)
        if isinstance(have, dict) and isinstance(want, dict):
            have, want = ({key: one[key] for key in one if have.get(key) != want.get(key)} for one in (have, want))
        if have != want:
            shown = (None if value is None else outcome.thing.show(option, value) for value in (have, want))
            options[option] = dict(zip(("before", "after"), shown))
    if before is None or after is None:
        change = "create" if after else "delete" if before else None  # None: it could not be compared
    else:
        change = "update" if options else "none"
    return {"change": change, "risk": outcome.plan.risk, "differences": options}


def counted(outcomes: list[Outcome]) -> dict[str, Any]:
    """How many things are created, updated, deleted, unchanged, failed and skipped; and that as one line."""
    counts = dict.fromkeys(("create", "update", "delete", "unchanged", "failed", "skipped"), 0)
    for outcome in outcomes:
        counts[verb(outcome)] += 1
    words = [f"{counts[name]} to {name}" for name in ("create", "update", "delete")]
    words.append(f"{counts['unchanged']} unchanged")
    words += [f"{counts[name]} {name}" for name in ("failed", "skipped") if counts[name]]
    return {**counts, "summary": "plan: " + ", ".join(words)}


def verb(outcome: Outcome) -> str:
    if outcome.status in ("failed", "skipped"):
        return outcome.status
    if not outcome.plan.steps:
        return "unchanged"
    if outcome.plan.before is None:
        return "create"
    return "update" if outcome.plan.after is not None else "delete"


def differences(outcomes: list[Outcome], uri: str, summary: str) -> list[dict[str, str]]:
    """One diff a changed thing, of nothing but the options that differ, and the plan as a last line."""
    found: list[dict[str, str]] = []
    for outcome in outcomes:
        if not took(outcome):
            continue
        thing, before, after = outcome.thing, outcome.plan.before, outcome.plan.after
        kind = thing.facts().get("type")
        label = f"{thing.kind} {thing.name}" + (f" ({kind})" if kind else "")
        risk = f"  [{outcome.plan.risk}]" if outcome.plan.risk else ""
        left, right = lines(thing, before, after), lines(thing, after, before)
        if left == right:  # a step without an option of its own, such as a build
            right += [f"{step.replace('_', ' ')}: done" for step in took(outcome)]
        found.append(
            {
                "before_header": f"{label} on {uri}",
                "after_header": f"{label}{risk}",
                "before": "".join(f"{line}\n" for line in left),
                "after": "".join(f"{line}\n" for line in right),
            }
        )
    return [*found, {"prepared": f"{summary}\n"}] if found else []


def lines(thing: Thing, state: dict[str, Any] | None, other: dict[str, Any] | None) -> list[str]:
    """The options of one side that the other side has otherwise."""
    if state is None:
        return []
    return [
        f"{option + ':':<14} {thing.show(option, value)}"
        for option, value in sorted(state.items())
        if value is not None and (other is None or other.get(option) != value)
    ]
