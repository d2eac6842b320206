"""Who stopped it? The events, `history` and `why` of a real daemon say that, also after its death."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Callable

import pytest

from tests.daemons import LiveDaemon, python

Make = Callable[..., LiveDaemon]
pytestmark = pytest.mark.real


def test_who_stopped_a_program_is_known_also_to_the_next_daemon(daemon: Make) -> None:
    live = daemon(f"programs: {{web: {{command: {python('import time; time.sleep(1000)')}}}}}")
    live.wait_for("web", "RUNNING")
    live.do("stop", "web")
    me = pwd.getpwuid(os.getuid()).pw_name
    assert {event["data"].get("by") for event in live.events() if event.get("name") == "web" and event["cause"] == "operator"} == {me}
    assert f"operator: {me}" in live.do("history", "web")
    live.kill()
    live.start()
    assert json.loads(live.do("why", "web", "--json"))["by"] == me
    assert f"because {me} asked for it" in live.do("why", "web").splitlines()[0]
