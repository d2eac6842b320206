"""No setting is lost on its way from the model to those who act on it."""

from __future__ import annotations

import msgspec

from supervisord_async.config import model
from supervisord_async.config.model import Backoff, Heartbeat, Logs, Notify, Probe, Program, Restart, Stop
from supervisord_async.core.policy import OnLimit, Policy, RestartPolicy
from supervisord_async.supervise.runs import run_spec
from supervisord_async.system import launcher

PROBE = Probe(kind="tcp", tcp=("127.0.0.1", 1), start_timeout_seconds=17.0)
#: Nothing here is a default.
PROGRAM = Program(
    name="web",
    command=("web",),
    group="shop",
    directory="/srv",
    umask=0o77,
    start_seconds=2.5,
    depends_on={"db": "ready"},
    heartbeat=Heartbeat(),
    readiness=PROBE,
    liveness=PROBE,
    restart=Restart(
        policy=RestartPolicy.ALWAYS,
        success_exit_codes=(0, 3),
        prevent_exit_codes=(4,),
        max_restarts=5,
        within_seconds=90.0,
        on_limit=OnLimit.RETRY,
        retry_after_seconds=7.0,
        backoff=Backoff(initial_seconds=0.25, factor=3.0, max_seconds=11.0, jitter=0.5),
        reset_after_seconds=13.0,
    ),
    stop=Stop(grace_seconds=4.0, scope="mixed"),
    logs=Logs(stdout="none"),
    limits=model.Limits(
        open_files=100,
        processes=50,
        core_size_bytes=0,
        memory_bytes=1,
        nice=5,
        ionice="idle",
        oom_score_adj=100,
        cpu_affinity=(0,),
        no_new_privileges=True,
    ),
)


def test_every_setting_that_decides_reaches_the_machine() -> None:
    assert PROGRAM.policy("web:1") == Policy(
        restart=RestartPolicy.ALWAYS,
        success_exit_codes=(0, 3),
        prevent_exit_codes=(4,),
        max_restarts=5,
        within_seconds=90.0,
        on_limit=OnLimit.RETRY,
        retry_after_seconds=7.0,
        backoff_initial_seconds=0.25,
        backoff_factor=3.0,
        backoff_max_seconds=11.0,
        backoff_jitter=0.5,
        reset_after_seconds=13.0,
        start_seconds=2.5,
        start_timeout_seconds=17.0,
        grace_seconds=4.0,
        tells_main_first=True,
        has_dependencies=True,
        checks=("heartbeat", "readiness", "liveness"),
        seed="web:1",
    )
    policy, default = PROGRAM.policy("web:1"), Policy()
    assert [field for field in Policy.__struct_fields__ if getattr(policy, field) == getattr(default, field)] == []


def test_how_long_a_start_may_take_is_for_who_says_when_it_is_over_to_say() -> None:
    notify = Notify(start_timeout_seconds=19.0)
    assert msgspec.structs.replace(PROGRAM, notify=notify).start_timeout_seconds == 17.0
    assert msgspec.structs.replace(PROGRAM, notify=notify, readiness=None).start_timeout_seconds == 19.0
    assert msgspec.structs.replace(PROGRAM, readiness=None).start_timeout_seconds is None


def test_each_replica_has_the_heartbeat_file_that_is_meant_for_it() -> None:
    daemon = model.Daemon(name="shop", run_dir="/run/shop", socket="/run/shop/s")
    told = msgspec.structs.replace(PROGRAM, replicas=2, heartbeat=Heartbeat(file="/beats/{replica}.beat"))
    assert run_spec.heartbeat_file_of(told, "web:1", daemon) == "/beats/1.beat"
    assert run_spec.heartbeat_file_of(PROGRAM, "web:1", daemon) == "/run/shop/heartbeats/web:1"
    assert run_spec.heartbeat_file_of(msgspec.structs.replace(PROGRAM, heartbeat=None), "web:1", daemon) is None
    assert run_spec.heartbeat_file_of(msgspec.structs.replace(PROGRAM, notify=Notify()), "web:1", daemon) is None


def test_every_limit_but_the_watched_one_reaches_the_launcher() -> None:
    made, limits = run_spec.limits_of(PROGRAM), PROGRAM.limits
    assert made.keys() == launcher.STEPS.keys() - {"user"}
    assert {name.removesuffix("_bytes") for name in limits.__struct_fields__} == {*made, "memory"}
    assert (made.pop("cpu_affinity"), made.pop("no_new_privileges")) == (",".join(map(str, limits.cpu_affinity or ())), "1")
    assert made == {name: str(getattr(limits, name, limits.core_size_bytes)) for name in made}
    assert run_spec.limits_of(msgspec.structs.replace(PROGRAM, limits=model.Limits())) == {}
