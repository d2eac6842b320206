"""Which files are not watched, since the daemon writes them."""

from __future__ import annotations

from supervisord_async.config.model import Configuration, Daemon, DaemonLog, Heartbeat, Logs
from supervisord_async.supervise.written_paths import WrittenPaths
from tests.fake_host import program


def test_they_are_found_out_once_for_each_configuration() -> None:
    """Each of 2,000 watched programs went through all of them, which held the loop for seconds, and kept a list of its own."""
    daemon = Daemon(name="shop", run_dir="/srv/.asupd", socket="/srv/.asupd/s", log=DaemonLog(file="/var/log/shop.log"))
    web = program("web", replicas=2, logs=Logs(stdout="/srv/web-{replica}.log", stderr="/srv/.asupd/logs/web-{replica}.err"))
    db = program("db", heartbeat=Heartbeat(file="/srv/db.beat"), logs=Logs(stdout="none"))
    present = Configuration(file="/srv/programs.yaml", daemon=daemon, programs={"web": web, "db": db})
    paths = WrittenPaths(lambda: present)
    assert set(paths()) == {"/srv/.asupd", "/var/log/shop.log", "/srv/web-0.log", "/srv/web-1.log", "/srv/db.beat"}
    assert paths() is paths()
    present = Configuration(file="/srv/programs.yaml", daemon=daemon, programs={"db": db})
    assert set(paths()) == {"/srv/.asupd", "/var/log/shop.log", "/srv/db.beat"}
