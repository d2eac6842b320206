"""Other tools' verbs and options: supervisorctl, systemctl, docker compose, kubectl, pm2, sv, circusctl … Imported only after a mistake."""

from __future__ import annotations

from collections.abc import Sequence

#: Our verbs, and other tools' words for them; ``{}`` stands for the names after the verb.
_WORDS = {
    "status {}": "ps ls list st show is-active is-failed get procs list-units list-timers",
    "status --tree {}": "tree graph list-dependencies pstree",
    "status --json {}": "pid id jlist prettylist listpids",
    "logs {}": "tail log journal maintail attach",
    "reload": "update add daemon-reload apply sync reloadconfig create",
    "reload --plan": "reread avail diff",
    "stop {}": "d force-stop pause suspend",
    "shutdown": "poweroff",
    "signal KILL {}": "kill",
    "signal HUP {}": "hup",
    "signal TERM {}": "term",
    "signal {}": "sendsignal",
    "why {}": "describe inspect explain info",
    "top": "monit stats dstats",
    "web": "dashboard ui plus open",
    "config {}": "cat env options",
    "start {}": "run resume u trigger",
    "restart {}": "bounce try-restart condrestart reload-or-restart force-restart force-reload gracefulreload",
    "scale {} N": "numprocesses incr decr",
    "--help": "help ?",
}
#: Other tools' verbs that have no counterpart, and what to do instead.
_INSTEAD = {
    "save dump resurrect export": "the file is the list of programs: nothing has to be saved",
    "startup unstartup": "a service starts asupd at boot, and it its programs: config/asupd.service is one for systemd",
    "flush clear": "logs are rotated by logs.max_size; what is to go is emptied by `truncate -s 0 FILE`",
    "reloadlogs reopen rotate logrotate": "asupd rotates its programs' logs itself, by logs.max_size; to reopen them after somebody else's "
    "renaming send it USR1",
    "quit exit": "there is no shell to leave; `asupctl shutdown` stops all programs, then the daemon",
    "reset reset-failed": "`asupctl start NAME` starts over after FATAL or flapping, with the count of restarts at 0",
    "enable": "with autostart: true (the default) in the file it starts with the daemon; `asupctl start NAME` starts it now",
    "disable mask": "with autostart: false in the file it does not start with the daemon; `asupctl stop NAME` stops it now",
    "once o": "with restart: never in the file `asupctl start NAME` runs it once",
    "check validate lint check-config configtest": "`asupd --check -c FILE` judges a file, `asupctl wait NAME --for ready` a program",
    "exec connect sh shell fg": "a program runs on this machine: `asupctl status` has its PID, `asupctl config NAME` its environment",
    "delete del remove rm": "delete it from the file, then `asupctl reload`; `asupctl stop NAME` stops it, but keeps it",
    "edit set init new install": "settings are in the file: edit it, then `asupctl reload`",
    "port-forward": "a program runs on this machine, and listens here",
    "healthz health ping live": "`asupctl version` ends with 0 where a daemon answers; over HTTP there is /v1/health",
    "metrics": "Prometheus text is at /metrics of the control socket, and of daemon.http",
    "echo": "`asupd --echo` shows what its programs print, `asupctl logs -f all` that of a running one",
    "upgrade": "install the new version, then `asupctl reexec`: programs run on",
}
#: Our verbs without names, and what to use for one program.
_FOR_ONE = {
    "reload": "it puts the whole file in force. `asupctl restart {}` begins a new run, `asupctl signal HUP {}` lets a program read its own "
    "files again",
    "shutdown": "it stops everything, then the daemon. `asupctl stop {}` stops programs",
    "reexec": "it replaces the daemon. `asupctl restart {}` restarts programs",
}
#: Other tools' options of what prints lines, and what to use here.
_OPTIONS_OF_LINES = {
    "--tail --lines --last -1 -2 -3 -4 -5 -6 -7 -8 -9": "so many lines are -n N",
    "-p --previous": "the last output of the run before is in `asupctl why NAME`, and further up in the same log",
    "-t --timestamps --time --date": "lines have times where the program's logs.format is timestamp",
    "--err --error -e": "standard error is --stderr",
}
#: Other tools' options, and what to use here.
_OPTIONS = {
    "--wait": "that it does by itself, but for --no-wait",
    "--dry-run --diff --check": "what a reload would do is `asupctl reload --plan`",
    "-y --yes": "nothing asks: leave it out",
    "-9": "a signal is sent by `asupctl signal 9 NAME`",
    "-a --all": "'all' is a selector: every program",
    "--replicas": "it is `asupctl scale NAME N`",
    "-o --output --format": "for scripts there is --json, for jq and its like",
    "-w --watch": "`asupctl top` is live, `asupctl events -f` a line for each change",
    "--failed --state": "what is missing: `asupctl status | grep -v RUNNING`; the exit code is 3 if anything is",
    "--force": "a stop ends with KILL by itself, after stop.grace_period",
    "-v --verbose": "`asupctl why NAME` has the details of one",
    "-u --unit": "programs are named without an option",
    "-d --daemon": "`asupd -d` is the daemon in the background",
    "-l --level": "the daemon's own log has daemon.log.level",
}
#: Options of docker compose, kubectl and pm2 for the grace period.
_GRACE = ("-t", "--time", "--grace-period", "--kill-timeout")
#: kubectl's kinds, which are left out of names.
_KINDS = frozenset(("pod", "pods", "deployment", "deployments", "deploy", "job", "jobs", "cronjob", "cronjobs", "service", "svc", "sts"))
_OF_ROLLOUT = {"restart": "restart {}", "status": "wait {} --for ready", "history": "history {}"}


def hint(verb: str, others: Sequence[str], verbs: Sequence[str]) -> str:
    """What was probably meant by an unknown ``verb`` followed by ``others``, as the end of an error message; empty if unknown.

    A unique beginning of one of ``verbs`` means that one; the last guess is the most similar one.
    """
    word, names = verb.lower(), _names(others)
    if word == "up":
        begun = f"start {' '.join(names)}" if names else "start all"
        return f": `asupd -d` starts the daemon and its programs, `asupctl {begun}` what is stopped"
    if word == "rollout" and names:
        return _of_rollout(names[0], names[1:])
    for theirs, what in _INSTEAD.items():
        if word in theirs.split():
            return f": {what}"
    if ours := _ours(word, others, names, verbs):
        return f": did you mean '{ours}'?"
    from difflib import get_close_matches

    near = get_close_matches(word, verbs, n=1)
    return f": did you mean '{near[0]}'?" if near else ""


def names_hint(verb: str, names: str) -> str:
    """What to use instead of ``verb``, which takes no names, as the end of an error message; empty if it is not a likely mistake."""
    return f": {_FOR_ONE[verb].replace('{}', names)}" if verb in _FOR_ONE else ""


def option_hint(verb: str, option: str) -> str:
    """What to use instead of an ``option`` that ``verb`` does not have, as the end of an error message; empty if unknown."""
    if verb in ("stop", "restart", "shutdown") and option in _GRACE:
        return " How long a program may take to end is its stop.grace_period; --timeout ends only the waiting."
    known = {**_OPTIONS_OF_LINES, **_OPTIONS} if verb in ("logs", "events", "history") else _OPTIONS
    return next((f" {what[0].upper()}{what[1:]}." for theirs, what in known.items() if option in theirs.split()), "")


def _ours(word: str, others: Sequence[str], names: Sequence[str], verbs: Sequence[str]) -> str | None:
    """The command for another tool's ``word`` followed by ``others``; None if unknown."""
    if word == "down":
        return f"asupctl stop {' '.join(names)}" if names else "asupctl shutdown"
    if word in ("help", "?") and others and others[0] in verbs:
        return f"asupctl {others[0]} --help"
    if word == "kill" and len(others) > 1 and others[0].startswith("-"):  # -9, -HUP, -s HUP
        signal, *rest = others[1:] if others[0] in ("-s", "--signal") else (others[0].lstrip("-"), *others[1:])
        return f"asupctl signal {' '.join((signal, *_names(rest)))}"
    begun = [one for one in verbs if one.startswith(word)]
    if len(begun) == 1 and len(word) > 1:
        return begun[0]
    template = next((ours for ours, theirs in _WORDS.items() if word in theirs.split()), None)
    return None if template is None else "asupctl " + " ".join(template.format(" ".join(names)).split())


def _of_rollout(what: str, names: Sequence[str]) -> str:
    if what == "undo":
        return ": put the former file in its place, then `asupctl reload`"
    ours = _OF_ROLLOUT.get(what, "restart {}").format(" ".join(names))
    return f": did you mean 'asupctl {' '.join(ours.split())}'?"


def _names(words: Sequence[str]) -> list[str]:
    """The names among the words after a verb: without options, numbers, and kubectl's kinds (``pod web``, ``deployment/web``)."""
    names = [word for word in words if not word.startswith("-") and not word.isdigit()]
    if names and names[0] in _KINDS and (len(names) > 1 or names[0].endswith("s")):
        names = names[1:]
    return [word.partition("/")[2] if word.partition("/")[0] in _KINDS else word for word in names]
