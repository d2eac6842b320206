"""The part of the reference that is not in the schema: how files are read, and what values look like."""

INTRODUCTION = """# Reference of programs.yaml

Generated from `supervisord_async/config/shape.py` by `python -m supervisord_async.config.schema`; do not edit. Editors get
the same from `config/programs.schema.json`: begin a file with `# yaml-language-server: $schema=…/programs.schema.json`.

## How a file is read

- **Strict.** Unknown keys, duplicate keys, tags, several documents, collections that contain themselves and files above
  8 MiB are refused. All problems are reported at once, as `FILE:LINE:COLUMN: KEY: what was expected, what was found`.
- **Plain words.** An unquoted `022` or `1:30` is text; `true`, `false`, `yes`, `no`, `on` and `off` are booleans, except in
  `environment` and in commands, where everything is the text that was written: `PORT: 8080`, `VERSION: 1.10`, `[sleep, 60]`.
- **Durations** are seconds as a number, or `500ms`, `5s`, `1m30s`, `2h`, `1d`.
- **Sizes** are bytes as a number, or `50MiB` (2^20 each), `10MB` (10^6 each); B, KiB, kB, GiB, GB, TiB, TB.
- **Signals** are names with or without `SIG`, numbers, or `RTMIN+1`.
- **Octal digits** (`umask`, `socket_mode`) mean the same with and without quotes: `022`, `"022"`.
- **Commands** are lists of words, or strings that are split as a shell would (quotes, backslashes) and run without one: `~`, `*`, `|`,
  `;` and the like stay as they are.
  With `shell: true` the string goes to `/bin/sh -c`; there too `${…}` has been expanded before, `$HOME` has not.
- **Paths** are relative to the file that carries them, also in `defaults` and in included files; `~/` is the daemon's HOME.
- **Variables.** `${VAR}` and `${VAR:-default}` expand in every value (not in keys), from the daemon's own environment, not
  from `environment_files`. The default also stands in for an empty variable. `$$` is a dollar; a bare `$HOME` stays as it is.
  An unset variable without default is an error. An unquoted value is read after expansion: `replicas: ${N:-2}` is a number.
  Between `{}` and `[]` YAML needs quotes around `"${VAR}"`: where a number or a boolean is expected, it is read as one all the same.
- **`x-` keys** are ignored wherever keys are fixed, and among programs: a place for anchors. `<<` merges work. Names that are
  yours, such as those of `environment`, may begin with `x-`.
- **`defaults`** are merged under each program mapping by mapping; lists, words and numbers replace. Shorthands count as what they
  stand for: `restart: always` over `defaults: {restart: {max_restarts: 3}}` keeps the 3. A null cancels a default. A list
  for `depends_on` replaces.
- **`include`** reads further files with `programs`, `defaults` and `include`. Their `defaults` are merged over those of the including
  file, and apply to their own programs. A file is read once. A program that two files define is an error. A glob may match nothing.
- **Names** of programs are letters, digits, `_`, `-`, `.`, `+` and `@`, and not `all`.

## The environment of a program

In this order, later ones winning: what is inherited (`inherit_environment`), `environment_files` in their order, `environment`.
Environment files consist of `NAME=value` lines, with quotes and comments as usual, `export` allowed; `$` is not expanded in them, and
a backslash at the end of a line in double quotes joins it with the next. A
missing file is an error. What the daemon's own supervisor told the daemon (`NOTIFY_SOCKET`, `LISTEN_FDS`, `ASUP_*`, …) is never
inherited; what systemd says about the daemon's service (`STATE_DIRECTORY` and the like, `JOURNAL_STREAM`, `INVOCATION_ID`, …) only if
the list of `inherit_environment` names it. With `user`, `HOME`, `USER` and `LOGNAME` come from the user's entry unless the file gives
them. `PWD` is the program's `directory`, as written, unless the file gives it.

## What a reload does with a change

It restarts the program for `command`, `shell`, `environment` (with its files), `user`, `group_name`, `directory`, `umask`, `limits`
(except `memory`), `sockets`, `notify` and `heartbeat.file`, also when `heartbeat` is added or removed; and for a log that was `none` or
`inherit` or becomes `inherit`, or a stderr that gets a place of its own. Everything else changes in place, the path of a log too.
New `stop` settings also apply to the run that such a restart ends, as with systemd.
`replicas` adds and removes processes; between 1 and more their names change, so all of them are new. Of `daemon`, a
change of `name`, `socket*` and `http*` takes effect at the daemon's next start (`asupctl reexec` is one), and a change of `run_dir` is
refused: running programs depend on it.
"""
