"""What others call verbs: supervisorctl, systemctl, docker compose, kubectl, process-compose, pm2. Loaded only after a mistake."""

from __future__ import annotations

from collections.abc import Sequence

#: Our words for theirs; ``{}`` is what was given after the verb.
_WORDS = {
    "status {}": "ps ls list st show is-active is-failed get",
    "status --tree {}": "tree graph list-dependencies",
    "status --json": "pid jlist prettylist",
    "logs {}": "tail log journal maintail",
    "reload": "update add daemon-reload apply sync",
    "reload --plan": "reread avail diff",
    "stop {}": "delete del remove rm disable",
    "shutdown": "quit exit poweroff",
    "signal KILL {}": "kill",
    "why {}": "describe inspect explain info",
    "top": "monit stats",
    "config {}": "cat env",
    "start {}": "run enable",
    "restart {}": "bounce try-restart rollout",
    "--help": "help ?",
}


def hint(verb: str, others: Sequence[str], verbs: Sequence[str]) -> str:
    """What was probably meant by an unknown ``verb`` before ``others``, to follow the words that there is none; empty where nobody knows.

    A beginning of one of ``verbs`` is that one, the nearest one is the last guess.
    """
    if verb == "up":
        return ": `asupd -d` starts the daemon and its programs, `asupctl start all` what is stopped"
    if verb == "down":
        return f": did you mean 'asupctl {' '.join(('stop', *others)) if others else 'shutdown'}'?"
    if verb in ("help", "?") and others and others[0] in verbs:
        return f": did you mean 'asupctl {others[0]} --help'?"
    begun = [one for one in verbs if one.startswith(verb)]
    if len(begun) == 1:
        return f": did you mean '{begun[0]}'?"
    for ours, theirs in _WORDS.items():
        if verb in theirs.split():
            names = " ".join(word for word in others if not word.startswith("-"))
            return f": did you mean 'asupctl {ours.format(names).rstrip()}'?"
    from difflib import get_close_matches

    near = get_close_matches(verb, verbs, n=1)
    return f": did you mean '{near[0]}'?" if near else ""
