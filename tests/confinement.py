"""cgroups for tests: where this machine gives none, tests that are about them say so and are skipped."""

from __future__ import annotations

import pytest

from supervisord_async.system import cgroups

#: ``sh -c`` of this daemonises a process that nothing but its cgroup leads to: no session, environment or parent of ours.
#: It writes its PID to the file ``hidden`` of its directory.
HIDE = "env -i PWD=$PWD setsid sh -c 'sleep 1000 & echo $! > hidden.new; mv hidden.new hidden'"


def need_cgroups() -> None:
    """Skips the test, loudly, where runs cannot have cgroups."""
    try:
        cgroups.make_home("probe-of-the-tests")
    except cgroups.UnusableError as error:
        pytest.skip(f"NOT TESTED, this machine gives us no cgroup v2 to divide: {error}")
    cgroups.remove_all("probe-of-the-tests")
