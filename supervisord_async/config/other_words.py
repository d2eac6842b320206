"""What other supervisors call the keys of a program: whoever comes from them is told the word of this format."""

from __future__ import annotations

#: From supervisord, systemd, docker compose, circus, pm2, honcho and Pebble, without case and separators.
_WORDS = {
    "directory": "cwd chdir workdir workingdir workingdirectory currentdirectory",
    "command": "cmd execstart exec script run args entrypoint program",
    "environment": "env vars environ environmentvariables",
    "environment_files": "envfile envfiles environmentfile dotenv",
    "replicas": "numprocs instances numprocesses processes scale count",
    "autostart": "enabled disabled startup",
    "start_seconds": "startsecs minuptime startuptime",
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
    "readiness": "readinessprobe startupprobe healthcheck check checks",
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
    "limits.nice": "nice priority",
    "schedule": "cron cronrestart oncalendar timer",
    "depends_on": "after requires wants dependencies needs dependson",
    "hooks.before_start": "execstartpre prestart beforestart",
    "hooks.after_exit": "execstoppost poststop afterstop",
    "reload_signal": "execreload reload",
    "sockets": "socket ports listen",
}
_KEYS = {word: key for key, words in _WORDS.items() for word in words.split()}


def our_word(key: str) -> str | None:
    """The key of this format for what others call ``key``; None where nobody does."""
    return _KEYS.get(key.lower().replace("_", "").replace("-", ""))
