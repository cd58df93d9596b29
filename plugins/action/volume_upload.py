# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module of this name, with its progress, and with images of the controller brought to the host."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.kvm.storage.plugins.plugin_utils import progress


class ActionModule(progress.TransferAction):
    """A src of the controller is read where it is by a local connection, and else brought over if it is needed."""

    def carry_out(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        if not args.get("src") or boolean(args.get("remote_src") or False, strict=False):
            return super().carry_out(args, task_vars)
        try:
            source = os.path.realpath(self._find_needle("files", args["src"]))
        except AnsibleError as error:
            raise AnsibleActionFail(f"src {args['src']!r} is not on the controller: {error}") from error
        if self.is_local():
            return super().carry_out({**args, "src": source, "remote_src": True}, task_vars)
        return self.bring(source, args, task_vars)

    def is_local(self) -> bool:
        """Whether the module runs where the plugin does, and as a user for whom the file is the same."""
        return str(self._connection.transport) == "local"

    def bring(self, source: str, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Ask whether the image is needed at all; then bring it, and carry the task out with it."""
        asked = self.predicted(args, task_vars)
        compared = "replace" in (asked.get("actions") or []) and not asked.get("failed")
        if asked.get("failed") or not asked.get("changed") or (self._task.check_mode and not compared):
            return asked
        there = self.copy(source, task_vars)
        try:
            return super().carry_out({**args, "src": there, "remote_src": True}, task_vars)
        finally:
            self.shell(f"rm -f {self._connection._shell.quote(there)}")

    def predicted(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """What the module would do, as far as it can be told without the image."""
        check_mode = self._task.check_mode
        self._task.check_mode = True
        try:
            return self.plainly(args, task_vars)
        finally:
            self._task.check_mode = check_mode

    def copy(self, source: str, task_vars: dict[str, Any]) -> str:
        """Bring a file into the task's directory on the host, and say so now and then; its path there.

        Its name stays, by which a list of checksums knows it, so it gets a directory of its own.
        """
        if self._connection._shell.tmpdir is None:
            self._make_tmp_path()
        tmpdir = self._connection._shell.tmpdir
        folder = self._connection._shell.join_path(tmpdir, "image")
        self._low_level_execute_command(f"mkdir -p {self._connection._shell.quote(folder)}", sudoable=False)
        there = self._connection._shell.join_path(folder, os.path.basename(source))
        told = Telling(str(task_vars.get("inventory_hostname") or "host"), source, bool(self._task.no_log))
        with told:
            self._transfer_file(source, there)
        self._fixup_perms2((tmpdir, folder, there))
        return there


class Telling:
    """A line now and then while a file is being brought over, of which nobody can say how far it is."""

    def __init__(self, host: str, source: str, silent: bool) -> None:
        self.line = f"[{host}] bring {os.path.basename(source)}  {progress.readable(os.path.getsize(source))}"
        self.silent, self.ended = silent, threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)

    def work(self) -> None:
        began = time.monotonic()
        while not self.ended.wait(progress.OFTEN):
            progress.display.display(f"{self.line}, {time.monotonic() - began:.0f} s")

    def __enter__(self) -> Telling:
        if not self.silent:
            self.thread.start()
        return self

    def __exit__(self, *dummy: object) -> None:
        self.ended.set()
        if self.thread.is_alive():
            self.thread.join()
