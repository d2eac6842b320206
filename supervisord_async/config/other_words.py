"""What other supervisors call keys and values, so that whoever writes their word is told ours."""

from __future__ import annotations

import re
from functools import cache

#: Keys of a program in supervisord, systemd, docker compose, Kubernetes, process-compose, circus, pm2, runit, s6, dinit, honcho and Pebble,
#: in lower case, without separators.
_WORDS = {
    "directory": "cwd chdir workdir workingdir workingdirectory currentdirectory",
    "command": "cmd execstart exec script run args entrypoint program",
    "environment": "env vars environ environmentvariables",
    "environment_files": "envfile envfiles environmentfile dotenv envfrom envdir",
    "inherit_environment": "copyenv copypath filterenv passenvironment unsetenvironment",
    "replicas": "numprocs instances numprocesses processes scale count parallelism concurrency formation",
    "rolling": "strategy updatestrategy rollingupdate updateconfig maxsurge maxunavailable",
    "autostart": "enabled startup profiles wantedby",
    "start_seconds": "startsecs minuptime startuptime minreadyseconds",
    "notify": "type",
    "group": "namespace",
    "stop": "shutdown",
    "watch": "develop watchpaths",
    "watch.ignore": "ignorewatch",
    "watch.debounce": "watchdelay",
    "restart": "autorestart restartpolicy availability onsuccess respawn candie smoothrecovery",
    "restart.max_restarts": "maxrestarts startretries maxretry maxretries startlimitburst restartlimitcount retries backofflimit",
    "restart.within": "startlimitinterval startlimitintervalsec restartlimitinterval",
    "restart.on_limit": "startlimitaction",
    "restart.backoff": "backoff backoffdelay backoffseconds restartsec restartdelay backofffactor expbackoffrestartdelay "
    "restartmaxdelaysec restartsteps",
    "restart.success_exit_codes": "exitcodes successexitstatus successexitcodes",
    "restart.prevent_exit_codes": "restartpreventexitstatus stopexitcodes",
    "stop.signal": "stopsignal killsignal downsignal termsignal",
    "stop.grace_period": "stopwaitsecs stopgraceperiod gracefultimeout killtimeout killdelay timeoutstopsec stoptimeout timeoutkill "
    "terminationgraceperiodseconds",
    "stop.scope": "stopasgroup killasgroup killmode stopchildren treekill",
    "stop.command": "execstop prestop lifecycle",
    "heartbeat": "watchdog watchdogsec heartbeattimeout heartbeatfile",
    "readiness": "readinessprobe startupprobe healthcheck check checks readylogline",
    "readiness.start_timeout": "timeoutstartsec startuptimeout listentimeout progressdeadlineseconds",
    "liveness": "livenessprobe",
    "logs": "log logging logfile logger",
    "logs.stdout": "stdout stdoutlogfile standardoutput outfile loglocation outputlog stdoutstream disablelogs",
    "logs.stderr": "stderr stderrlogfile standarderror errorfile redirectstderr stderrstream",
    "logs.max_size": "maxsize logmaxsize stdoutlogfilemaxbytes stderrlogfilemaxbytes",
    "logs.backups": "stdoutlogfilebackups stderrlogfilebackups logbackups",
    "logs.format": "time logdateformat logtype",
    "user": "uid runas runasuser securitycontext setuidgid",
    "group_name": "gid runasgroup group",
    "limits": "rlimits resources ulimits",
    "limits.open_files": "limitnofile nofile rlimitnofile",
    "limits.processes": "limitnproc nproc rlimitnproc tasksmax",
    "limits.core_size": "limitcore rlimitcore",
    "limits.memory": "memorymax memoryhigh maxmemoryrestart memlimit memory",
    "limits.nice": "nice",
    "limits.ionice": "ioschedulingclass ioschedulingpriority",
    "limits.oom_score_adj": "oomscoreadjust oomscoreadj",
    "limits.cpu_affinity": "cpuaffinity cpuset",
    "schedule": "cron oncalendar timer",
    "schedule.timezone": "timezone crontimezone",
    "schedule.catch_up": "persistent",
    "depends_on": "after requires require wants waitsfor dependsms bindsto dependencies needs dependson",
    "hooks.before_start": "execstartpre prestart beforestart beforespawn",
    "hooks.after_exit": "execstoppost poststop afterstop afterreap finish",
    "reload_signal": "execreload reload sendhup",
    "sockets": "socket ports listen usesockets",
}
#: Words that mean these keys only inside their section.
_INSIDE = {
    "stop.grace_period": "timeout timeoutseconds",
    "restart.policy": "condition",
    "restart.max_restarts": "maxattempts limit",
    "restart.within": "window interval",
    "restart.backoff": "delay",
    "hooks.before_start": "before",
    "hooks.after_exit": "after",
    "schedule.at": "schedule cron every oncalendar",
    "watch.paths": "path include",
    "watch.ignore": "exclude ignored",
    "logs.max_size": "size maxbytes",
    "logs.backups": "maxfile maxfiles keep retain rotate",
    "logs.stdout": "file path out",
    "logs.stderr": "error err",
}
#: Top-level keys of other supervisors' files.
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
_ON_THE_MACHINE = "programs run on the machine itself"
_NUMBERED = "ASUP_REPLICA is the replica's number, from which a command with shell: true computes a port"
_NO_AGE = "no run is ended for its age: let the command begin with timeout(1)"
#: Other supervisors' keys that have no counterpart, and what to do instead.
_WITHOUT = {
    "image imagepullpolicy build platform pullpolicy": f"{_ON_THE_MACHINE}, without images",
    "volumes volumemounts configs tmpfs readonly devices": f"{_ON_THE_MACHINE} and see its files",
    "networks networkmode expose extrahosts hostname dns links domainname": f"{_ON_THE_MACHINE} and use its network",
    "init": "asupd ends and reaps whatever a program leaves behind",
    "deploy": "of it 'replicas' is a key here, 'limits' what it may use, and 'restart' when it is started again",
    "labels annotations selector nodeselector tolerations affinity": f"{_ON_THE_MACHINE}; 'group' names several at once",
    "priority": "what must be up first is named by 'depends_on'",
    "containername": "the program's key is its name",
    "pidfile": "a program runs in the foreground and needs none",
    "isdaemon": "a program must run in the foreground",
    "startdelay startdelaysecs delaystart": "'depends_on' waits for what it needs; for a mere delay 'hooks.before_start: [sleep, 3]'",
    "essential critical exitonend exitonfailure": "'restart: {max_restarts: 0, on_limit: shutdown}' ends the daemon with this program, "
    "'daemon.exit_when: any_fatal' with any",
    "processname": "processes are called NAME, or NAME:0, NAME:1 … of several replicas",
    "initcontainers": "each is a program of its own; 'depends_on: {it: succeeded}' waits for it",
    "poststart afterstart": "what follows the start is a program of its own, with 'depends_on: {this: ready}'",
    "beforesignal beforestop prestop": "'stop.command' is run instead of the signal",
    "concurrencypolicy": "a schedule never starts what still runs, like Forbid",
    "startingdeadlineseconds": "'schedule.catch_up' says what becomes of a time that was missed",
    "suspend": "`asupctl stop` pauses a schedule, `asupctl start` takes it up again",
    "readwritepaths readonlypaths inaccessiblepaths protectsystem protecthome privatetmp privatedevices privatenetwork dynamicuser "
    "systemcallfilter securityopt": "there is no sandboxing: keep such a service a unit",
    "capabilityboundingset ambientcapabilities capadd capdrop privileged": "capabilities are kept as they are: let the command begin with "
    "setpriv(1)",
    "loadcredential setcredential loadcredentialencrypted": "a secret comes by 'environment_files', or from a file that the program reads",
    "statedirectory logsdirectory cachedirectory": "the folder must be there: install -d, by whoever installs the program",
    "runtimedirectory": "/run is empty after a boot: a program {command: [install, -d, -o, USER, /run/NAME], restart: never} makes the "
    "folder, and 'depends_on: {it: succeeded}' waits for that",
    "limitmemlock limitas limitcpu limitdata limitfsize limitlocks limitmsgqueue limitrss limitrtprio limitrttime limitsigpending "
    "limitstack": "let the command begin with prlimit(1)",
    "supplementarygroups": "with 'user' come all groups that the user is in",
    "conditionpathexists execcondition": "a 'hooks.before_start' that fails keeps it from starting",
    "remainafterexit": "a job that ends well stays EXITED, and 'depends_on: {it: succeeded}' holds from then on",
    "execstartpost": "what follows the start is a program of its own, with 'depends_on: {this: ready}'",
    "randomizeddelaysec": "a schedule is kept to the second: let the command begin with a sleep of its own",
    "mailto": "'daemon.on_event' runs a command, or calls a URL, when something failed for good",
    "onfailure": "'restart' says what follows a failure; 'daemon.on_event' runs a command, or calls a URL, where it is one for good",
    "timeoutsec": "'readiness.start_timeout' bounds the start, 'stop.grace_period' the stop",
    "stdoutcapturemaxbytes stderrcapturemaxbytes stdouteventsenabled stderreventsenabled": "`asupctl logs -f NAME --json` gives each "
    "line to another program",
    "serverurl": "ASUP_SOCKET has the control socket, for each program",
    "tty istty isinteractive stdinopen standardinput stdin closechildstdin": "programs have no terminal, and nothing to read from; "
    "what only looks for a terminal finds that of script(1): [script, -qefc, COMMAND, /dev/null]",
    "disabled down": "here it is 'autostart: false'",
    "maxruntime activedeadlineseconds runtimemaxsec commandtimeout": _NO_AGE,
    "maxage cronrestart": "a program with a schedule restarts another: {command: [asupctl, restart, NAME], schedule: '0 3 * * *'}",
    "ttlsecondsafterfinished successfuljobshistorylimit failedjobshistorylimit revisionhistorylimit": "'daemon.history' says how long the "
    "past is kept",
    "cpu cpus cpuquota cpulimit": "there is no limit of CPU time but 'limits.nice' and 'limits.cpu_affinity'",
    "requests": "nothing is reserved; 'limits' are limits",
    "grpc": "ask by a command, such as [grpc_health_probe, '-addr=127.0.0.1:50051']",
    "execmode": "replicas share a port by 'sockets'",
    "interpreter interpreterargs nodeargs": "the command begins with the interpreter: [node, server.js]",
    "virtualenv": "the command begins with the environment's own interpreter: [venv/bin/python, app.py]",
    "waitready": "process.send('ready') is not heard: say READY=1 by 'notify', or let 'readiness' look for a line or ask",
    "notificationfd": "nobody reads that descriptor: say READY=1 by 'notify', or let 'readiness' look for a line or ask",
    "shutdownwithmessage": "a program is stopped by 'stop.signal'",
    "mergelogs combinelogs": "each replica has a log; `asupctl logs NAME` shows them together",
    "instancevar incrementvar": _NUMBERED,
    "port": "a port is a variable like others: environment: {PORT: 8080}; " + _NUMBERED,
    "envproduction envdevelopment envstaging": "a file has one 'environment', in which ${VAR} stands for what differs",
    "sourcemapsupport": "node does it itself: [node, --enable-source-maps, server.js]",
    "oneshot": "a job that ends well stays EXITED, with restart: on-failure (the default) or never",
}
#: More of those, for words that mean something else inside a section.
_WITHOUT_IN_PROGRAM = {"timeout": _NO_AGE, "before": "the other program names this one in its 'depends_on'"}
#: Values of ``restart`` and of ``depends_on`` elsewhere; process-compose and compose write the latter below ``condition``.
_VALUES = {
    "always": "unless-stopped true",
    "on-failure": "unexpected onfailure on_failure on-abnormal on-abort on-watchdog",
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
#: What supervisord and systemd take where a log's path is expected, and what to write here.
_LOGS = {
    "auto": "leave it out for a log in the run_dir",
    "none null": "none",
    "syslog journal kmsg console tty": "inherit, which under systemd is the journal",
    "append file truncate": "a path alone, which is always appended to",
}
_EXPANSION = rf"%\((?P<name>ENV_\w+|{'|'.join(_EXPANSIONS)})\)\d*[sd]"  # compiled only when needed, to keep the start quick
_TABLES = {"Program": _WORDS, "File": _SECTIONS, "Readiness": _PROBE, "Liveness": _PROBE}
_INNER = ("Hooks", "Limits", "Logs", "Restart", "Schedule", "Stop", "Watch")  #: shapes whose keys are the dotted ones of ``_WORDS``


def our_word(key: str, shape: str) -> str | None:
    """Our key for what other supervisors call ``key`` in the section ``shape``; None if none of them does."""
    return _inverted(shape).get(_bare(key))


def instead(key: str, shape: str) -> str | None:
    """What to do instead of ``key``, which other supervisors have in a program or its section ``shape``; None for other keys."""
    if shape in ("File", "Daemon"):
        return None
    tables = (_WITHOUT, _WITHOUT_IN_PROGRAM) if shape == "Program" else (_WITHOUT,)
    return next((words for table in tables for keys, words in table.items() if _bare(key) in keys.split()), None)


def our_value(value: object) -> str | None:
    """Our value for another supervisor's; None if there is none."""
    if isinstance(value, dict) and set(value) == {"condition"}:
        value = value["condition"]
    word = str(value).lower() if isinstance(value, str | bool) else ""
    return next((ours for ours, theirs in _VALUES.items() if word in theirs.split()), None)


def foreign_expansion(text: str) -> str | None:
    """What to say about a supervisord expansion (``%(…)s``) in ``text``; None if there is none."""
    match = re.search(_EXPANSION, text) if "%(" in text else None
    if match is None:
        return None
    name = match["name"]
    ours = f"${{{name.removeprefix('ENV_')}}}" if name.startswith("ENV_") else _EXPANSIONS[name]
    return f"{match[0]} is passed on as it stands: it is supervisord's; here: {ours}"


def foreign_log(value: str) -> str | None:
    """What to say about a log's path, as it was written, if it is another supervisor's word (``AUTO``, ``append:PATH``); else None."""
    word = value.partition(":")[0].lower()
    ours = next((ours for words, ours in _LOGS.items() if word in words.split()), None)
    return ours and f"'{value}' is taken for a file of that name; here: {ours}"


def _bare(key: str) -> str:
    return key.lower().replace("_", "").replace("-", "")


@cache
def _inverted(shape: str) -> dict[str, str]:
    table = _TABLES.get(shape, {})
    pairs = list(table.items())
    if shape in _INNER:
        section = f"{shape.lower()}."
        pairs = [(key.removeprefix(section), words) for each in (_WORDS, _INSIDE) for key, words in each.items() if key.startswith(section)]
    return {word: key for key, words in pairs for word in words.split()}
