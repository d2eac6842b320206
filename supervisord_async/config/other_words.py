"""What other supervisors call keys and values: whoever comes from them is told the word of this format."""

from __future__ import annotations

import re
from functools import cache

#: Keys of a program in supervisord, systemd, docker compose, process-compose, circus, pm2, honcho and Pebble, without case and separators.
_WORDS = {
    "directory": "cwd chdir workdir workingdir workingdirectory currentdirectory",
    "command": "cmd execstart exec script run args entrypoint program",
    "environment": "env vars environ environmentvariables",
    "environment_files": "envfile envfiles environmentfile dotenv",
    "replicas": "numprocs instances numprocesses processes scale count deploy",
    "autostart": "enabled disabled startup profiles wantedby",
    "start_seconds": "startsecs minuptime startuptime",
    "notify": "type",
    "group": "namespace",
    "stop": "shutdown",
    "watch": "develop watchpaths",
    "restart": "autorestart restartpolicy availability onfailure onsuccess",
    "restart.max_restarts": "maxrestarts startretries maxretry startlimitburst retries",
    "restart.within": "startlimitinterval startlimitintervalsec",
    "restart.backoff": "backoff backoffdelay restartsec restartdelay backofffactor backofflimit expbackoffrestartdelay",
    "restart.success_exit_codes": "exitcodes successexitstatus successexitcodes",
    "restart.prevent_exit_codes": "restartpreventexitstatus",
    "stop.signal": "stopsignal killsignal",
    "stop.grace_period": "stopwaitsecs stopgraceperiod gracefultimeout killtimeout killdelay timeoutstopsec stoptimeout",
    "stop.scope": "stopasgroup killasgroup killmode stopchildren treekill",
    "stop.command": "execstop",
    "heartbeat": "watchdog watchdogsec heartbeattimeout heartbeatfile",
    "readiness": "readinessprobe startupprobe healthcheck check checks readylogline",
    "readiness.start_timeout": "timeoutstartsec startuptimeout",
    "liveness": "livenessprobe",
    "logs": "log logging logfile",
    "logs.stdout": "stdout stdoutlogfile standardoutput outfile loglocation outputlog",
    "logs.stderr": "stderr stderrlogfile standarderror errorfile redirectstderr",
    "logs.max_size": "maxsize logmaxsize stdoutlogfilemaxbytes stderrlogfilemaxbytes",
    "logs.backups": "stdoutlogfilebackups stderrlogfilebackups logbackups",
    "user": "uid runas",
    "group_name": "gid",
    "limits": "rlimits resources ulimits",
    "limits.open_files": "limitnofile nofile",
    "limits.memory": "memorymax maxmemoryrestart memlimit memory",
    "limits.nice": "nice",
    "schedule": "cron cronrestart oncalendar timer",
    "depends_on": "after requires wants bindsto dependencies needs dependson",
    "hooks.before_start": "execstartpre prestart beforestart",
    "hooks.after_exit": "execstoppost poststop afterstop",
    "reload_signal": "execreload reload",
    "sockets": "socket ports listen",
}
#: What a whole file is made of elsewhere.
_SECTIONS = {
    "programs": "services processes apps program containers jobs tasks",
    "defaults": "common",
    "daemon": "supervisord global settings",
    "daemon.http": "inethttpserver",
    "daemon.socket": "unixhttpserver",
    "daemon.on_event": "eventlistener eventlisteners",
    "daemon.log": "loglevel logfile",
    "include": "includes extends",
    "programs.NAME.group": "groups",
    "programs.NAME.environment": "environment env",
}
#: A probe's keys in docker compose, Kubernetes and process-compose.
_PROBE = {
    "http": "httpget url",
    "tcp": "tcpsocket port",
    "command": "test exec cmd",
    "interval": "periodseconds period",
    "timeout": "timeoutseconds",
    "failures": "retries failurethreshold",
    "successes": "successthreshold",
    "initial_delay": "initialdelayseconds startperiod delay",
}
#: What there is no key for, and what to do instead.
_WITHOUT = {
    "image": "programs run on the machine itself, without images",
    "build": "programs run on the machine itself, without images",
    "volumes": "programs run on the machine itself and see its files",
    "networks": "programs run on the machine itself and use its network",
    "priority": "what must be up first is named by 'depends_on'",
    "containername": "the program's key is its name",
    "pidfile": "a program runs in the foreground and needs none",
    "isdaemon": "a program must run in the foreground",
    "processname": "processes are called NAME, or NAME:0, NAME:1 … of several replicas",
}
#: Values of ``restart`` and of ``depends_on`` elsewhere; process-compose and compose write the latter below ``condition``.
_VALUES = {
    "always": "unless-stopped true",
    "on-failure": "unexpected onfailure on_failure",
    "never": "no false none",
    "ready": "service_healthy process_healthy healthy",
    "started": "service_started process_started running",
    "completed": "process_completed",
    "succeeded": "service_completed_successfully process_completed_successfully",
}
#: supervisord's expansions, and what stands for them here.
_EXPANSIONS = {
    "program_name": "in a log's path {program}, and in a command with shell: true $ASUP_PROGRAM",
    "group_name": "in a command with shell: true $ASUP_GROUP",
    "process_num": "in a log's path {replica}, and in a command with shell: true $ASUP_REPLICA",
    "here": "a path that is relative to the file",
    "host_node_name": "${HOSTNAME}",
}
_EXPANSION = rf"%\((?P<name>ENV_\w+|{'|'.join(_EXPANSIONS)})\)\d*[sd]"  # compiled where it is needed: no start has to wait for it
_TABLES = {"Program": _WORDS, "File": _SECTIONS, "Readiness": _PROBE, "Liveness": _PROBE}


def our_word(key: str, shape: str) -> str | None:
    """The key of this format for what others call ``key`` where ``shape`` stands; None where nobody does."""
    return _inverted(shape).get(_bare(key))


def instead(key: str) -> str | None:
    """What holds where a program has no ``key`` that others have; None of any other."""
    return _WITHOUT.get(_bare(key))


def our_value(value: object) -> str | None:
    """The value of this format for another supervisor's; None where there is none."""
    if isinstance(value, dict) and set(value) == {"condition"}:
        value = value["condition"]
    word = str(value).lower() if isinstance(value, str | bool) else ""
    return next((ours for ours, theirs in _VALUES.items() if word in theirs.split()), None)


def foreign_expansion(text: str) -> str | None:
    """What to say of an expansion of supervisord's in ``text``; None where there is none."""
    match = re.search(_EXPANSION, text) if "%(" in text else None
    if match is None:
        return None
    name = match["name"]
    ours = f"${{{name.removeprefix('ENV_')}}}" if name.startswith("ENV_") else _EXPANSIONS[name]
    return f"{match[0]} is passed on as it stands: it is supervisord's; here: {ours}"


def _bare(key: str) -> str:
    return key.lower().replace("_", "").replace("-", "")


@cache
def _inverted(shape: str) -> dict[str, str]:
    return {word: key for key, words in _TABLES.get(shape, {}).items() for word in words.split()}
