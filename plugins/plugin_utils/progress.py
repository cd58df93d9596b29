# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Long modules that tell how far they are: started in the background as by async, and looked at until they end.

What ActionBase has for this is not all public. Where any of it is missing or acts otherwise, the module runs plainly.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.kvm.storage.plugins.module_utils.progress import VARIABLE
from ansible_collections.kvm.storage.plugins.module_utils.sizes import readable

LONGEST = 30 * 24 * 3600  # seconds that a module may take in the background
OFTEN, SELDOM, SILENCE = 10.0, 60.0, 1.0  # seconds between two lines: with news, without, and at least
PERCENT = 5
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 2.0  # seconds between two looks
MOST_FAILURES = 30  # looks one after the other that a lost connection may cost
LOST = 3  # looks after which a process that is gone has left no result
OWN_KEYS = ("ansible_job_id", "finished", "started", "results_file", "stdout", "stdout_lines", "stderr", "stderr_lines")

display = Display()


class Lines:
    """What is said of a run, and when: each OFTEN or PERCENT with news, else each SELDOM."""

    def __init__(self, host: str, action: str, now: float) -> None:
        self.host, self.action = host, action
        self.began = self.said = now
        self.shown: dict[str, Any] = {}

    def next(self, found: dict[str, Any], now: float) -> str:
        """A line, or nothing."""
        since = now - self.said
        done, before = found.get("done") or 0, self.shown.get("done") or 0
        same_step = found.get("step") == self.shown.get("step")
        total = found.get("total") or 0
        news = bool(found) and (not same_step or done != before)
        far = bool(total) and (done - (before if same_step else 0)) * 100 >= PERCENT * total
        if since < SILENCE or not (since >= SELDOM or (news and since >= OFTEN) or (far and done)):
            return ""
        self.said, self.shown = now, dict(found)
        return f"[{self.host}] {self.text(found, now)}"

    def text(self, found: dict[str, Any], now: float) -> str:
        seconds = f"{now - self.began:.0f} s"
        if not found:
            return f"{self.action}: {seconds}"
        done, total = found.get("done") or 0, found.get("total")
        if total:
            return (
                f"{found['step']} {min(100 * done // total, 100):3d}%  {readable(done)} of {readable(total)}, {seconds}"
            )
        return f"{found['step']}" + (f"  {readable(done)}" if done else "") + f", {seconds}"


class Unable(Exception):
    """This core, or this connection, does not run modules in the background as it is expected here."""


class TransferAction(ActionBase):
    """Runs the module of its own name. Subclasses may bring files over before."""

    _supports_check_mode = True
    _supports_async = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        if result.get("skipped"):
            return result
        result.update(self.carry_out(self._task.args.copy(), task_vars or {}))
        return result

    def carry_out(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """The result of the module with these options."""
        if self._task.async_val or self._task.check_mode:
            return self.plainly(args, task_vars, wrap_async=bool(self._task.async_val))
        try:
            job = self.begin(args, task_vars)
        except Unable as reason:
            display.vv(f"{self._task.action} runs without progress: {reason}")
            return self.plainly(args, task_vars)
        return self.follow(job, task_vars)

    def plainly(self, args: dict[str, Any], task_vars: dict[str, Any], wrap_async: bool = False) -> dict[str, Any]:
        found: dict[str, Any] = self._execute_module(
            module_name=self._task.action, module_args=args, task_vars=task_vars, wrap_async=wrap_async
        )
        return found

    def begin(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Start the module in the background; Unable before anything was started."""
        environment, seconds = getattr(self._task, "environment", None), self._task.async_val
        if not isinstance(environment, list) or getattr(self._connection, "always_pipeline_modules", False):
            raise Unable("this connection starts nothing in the background")
        token = secrets.token_hex(16)
        environment.append({VARIABLE: token})
        self._task.async_val = LONGEST
        try:
            job: dict[str, Any] = self._execute_module(
                module_name=self._task.action, module_args=args, task_vars=task_vars, wrap_async=True
            )
        except (TypeError, AttributeError) as error:  # an interface that has changed
            raise Unable(str(error)) from error
        finally:
            self._task.async_val = seconds
            environment.pop()
        if not job.get("ansible_job_id") or not job.get("results_file"):
            raise Unable(str(job.get("msg") or "nothing was started"))
        return {**job, "token": token}

    def follow(self, job: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Say how far it is until it has ended; its result."""
        place = job["results_file"]
        progress = os.path.join(os.path.dirname(place), f"kvm.storage-{job['token']}")
        host = str(task_vars.get("inventory_hostname") or "host")
        lines = Lines(host, str(self._task.action).rpartition(".")[2], time.monotonic())
        pid = None
        try:
            pause, failures, gone = FIRST_PAUSE, 0, 0
            while True:
                time.sleep(pause)
                pause = min(pause * 1.3, LONGEST_PAUSE)
                try:
                    ended, found, alive = self.look(place, progress, pid, job["token"])
                    failures = 0
                except AnsibleConnectionFailure:
                    failures += 1
                    if failures > MOST_FAILURES:
                        raise
                    with contextlib.suppress(Exception):
                        self._connection.reset()
                    continue
                if ended:
                    break
                pid = found.get("pid") or pid
                gone = 0 if alive else gone + 1
                if gone > LOST:
                    return {"failed": True, "msg": f"{self._task.action} was ended on {host} and left no result"}
                line = lines.next(found, time.monotonic())
                if line and not self._task.no_log:
                    display.display(line)
            pid = None
            return self.result(job, task_vars)
        except BaseException:  # the task's timeout, or somebody who gives up: nobody would look at its end any more
            if pid is not None:
                wait = f"kill -0 {int(pid)} || break; sleep 0.2"
                # then core's wrapper writes what it takes for its result
                self.shell(f"{{ kill {int(pid)}; for n in 1 2 3 4 5 6 7 8 9; do {wait}; done; sleep 0.5; }}")
            raise
        finally:
            self.shell(f"rm -f {shlex.quote(place)} {shlex.quote(progress)}")

    def look(self, place: str, progress: str, pid: int | None, token: str) -> tuple[bool, dict[str, Any], bool]:
        """(whether the job has ended, what it last told, whether its process is there)."""
        command = f"cat {shlex.quote(place)}; echo; cat {shlex.quote(progress)} 2>/dev/null; echo"
        command += f"; {alive(pid, token)} && echo alive"
        answer = self._low_level_execute_command(f"{{ {command}; }} || true", sudoable=True)
        text = answer.get("stdout") or ""
        objects = [found for found in map(read_json, text.splitlines()) if found is not None]
        if not objects:
            return False, {}, True
        ended = "started" not in objects[0]
        told = next((one for one in objects[1:] if "pid" in one), {})
        # what it told of itself outlives it
        return ended, told, "\nalive" in text or (pid is None and bool(told))

    def result(self, job: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """What the module returned, as if it had been run plainly."""
        args = {"jid": job["ansible_job_id"], "_async_dir": os.path.dirname(job["results_file"])}
        found: dict[str, Any] = self._execute_module(
            module_name="ansible.legacy.async_status", module_args=args, task_vars=task_vars
        )
        if found.get("failed") and "data" in found and "cmd" in found:  # it printed no result
            return {
                "failed": True,
                "msg": "MODULE FAILURE: No start of json char found\nSee stdout/stderr for the exact error",
                "module_stdout": found["data"],
                "module_stderr": found.get("stderr", ""),
            }
        return without_own_keys(found)

    def shell(self, command: str) -> None:
        """A command whose failure changes nothing."""
        with contextlib.suppress(Exception):
            self._low_level_execute_command(f"{command} 2>/dev/null || true", sudoable=True)


def alive(pid: int | None, token: str) -> str:
    """A command that tells whether a module is there: by its number, or by the environment that it was started with.

    The pattern does not fit itself, which sudo puts into an environment; where none can be read, it counts as alive.
    """
    if pid is not None:
        return f"kill -0 {int(pid)} 2>/dev/null"
    pattern = f"{VARIABLE}=[{token[0]}]{token[1:]}"
    blind = "KVM_STORAGE_LOOK=1 grep -qs KVM_STORAGE_LOOK=1 /proc/self/environ"
    return f"{{ grep -qs {shlex.quote(pattern)} /proc/[0-9]*/environ || ! {blind}; }}"


def without_own_keys(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in OWN_KEYS}


def read_json(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
