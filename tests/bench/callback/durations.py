# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes how long each task and each item of a loop took to the file that BENCH_DURATIONS names."""

from __future__ import annotations

import json
import os
import time

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: durations
type: aggregate
short_description: durations of tasks and of loop items, as JSON
description: Made for tests/bench.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "durations"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[dict] = []
        self.begin = self.last = time.monotonic()

    def v2_playbook_on_task_start(self, task, is_conditional) -> None:
        self.begin = self.last = time.monotonic()
        self.tasks.append({"name": task.name, "items": []})

    def item_done(self, result) -> None:
        now = time.monotonic()
        self.tasks[-1]["items"].append(now - self.last)
        self.last = now

    v2_runner_item_on_ok = v2_runner_item_on_failed = item_done

    def v2_runner_on_ok(self, result) -> None:
        self.tasks[-1]["seconds"] = time.monotonic() - self.begin
        self.tasks[-1]["changed"] = bool(result.is_changed())

    def v2_playbook_on_stats(self, stats) -> None:
        with open(os.environ["BENCH_DURATIONS"], "w", encoding="utf-8") as file:
            json.dump(self.tasks, file)
