"""What a program finds in its environment, and where it came from."""

import os

import pytest

from supervisord_async.config.diff import completed, diff
from supervisord_async.config.load import load
from supervisord_async.errors import ConfigError


def test_own_keys_beat_files_which_beat_what_is_inherited(project):
    project.write("one.env", "A=file1\nB=file1\nC=file1\n")
    project.write("two.env", "B=file2\n")
    program = project.program("command: x\nenvironment_files: [one.env, two.env]\nenvironment: {C: own}", A="up", D="up")
    assert {name: program.environment[name] for name in "ABCD"} == {"A": "file1", "B": "file2", "C": "own", "D": "up"}


@pytest.mark.parametrize(
    ("inherit", "names"),
    [("true", {"HOME", "PATH", "A"}), ("false", set()), ("[A, NOT_THERE]", {"A"}), ("[]", set())],
)
def test_what_is_inherited_is_as_told(project, inherit, names):
    assert set(project.program(f"command: x\ninherit_environment: {inherit}", A="1").environment) == names


def test_what_the_daemon_was_told_by_its_own_supervisor_stays_with_it(project):
    told = {"NOTIFY_SOCKET": "x", "LISTEN_FDS": "1", "WATCHDOG_USEC": "1", "ASUP_NAME": "outer", "ASUP_SOCKET": "/s", "ASUP_TAG": "t"}
    assert set(project.program("command: x", **told).environment) == {"HOME", "PATH"}
    assert set(project.program("command: x\ninherit_environment: [ASUP_NAME, A]", A="1", **told).environment) == {"A"}


def test_what_systemd_says_of_the_daemons_service_is_for_who_names_it(project):
    told = {"STATE_DIRECTORY": "/var/lib/asupd", "JOURNAL_STREAM": "8:1", "INVOCATION_ID": "x", "SYSTEMD_EXEC_PID": "1"}
    assert set(project.program("command: x", **told).environment) == {"HOME", "PATH"}
    assert set(project.program("command: x\ninherit_environment: [STATE_DIRECTORY]", **told).environment) == {"STATE_DIRECTORY"}
    assert project.program("command: x\nenvironment: {STATE_DIRECTORY: '${STATE_DIRECTORY}'}", **told).environment["STATE_DIRECTORY"]


def test_with_a_user_its_own_home_is_not_the_daemons(project):
    assert set(project.program("command: x\nuser: nobody", USER="root", LOGNAME="root").environment) == {"PATH"}
    assert project.program("command: x\nuser: nobody\nenvironment: {HOME: /x}").environment["HOME"] == "/x"
    assert project.program("command: x\nuser: nobody\ninherit_environment: [HOME]").environment["HOME"] == "/home/me"


def test_environment_files_are_read_as_people_write_them(project):
    project.write("a.env", "\n# comment\nexport A=1\nB='two words'\nC=\"x\\ny\"\nD=$A ${A}\nE=\nF=a#b # note\n")
    environment = project.program("command: x\nenvironment_files: [a.env]").environment
    assert {name: environment[name] for name in "ABCDEF"} == {"A": "1", "B": "two words", "C": "x\ny", "D": "$A ${A}", "E": "", "F": "a#b"}


def test_arguments_over_several_lines_are_joined_as_a_shell_and_systemd_join_them(project):
    project.write("a.env", "A=\"--one \\\n --two\"\nB='--one \\\n --two'\n")
    environment = project.program("command: x\nenvironment_files: [a.env]").environment
    assert (environment["A"], environment["B"]) == ("--one  --two", "--one \\\n --two")


def test_a_variable_that_holds_its_own_name_unreplaced_is_warned_of(project):
    project.write("a.env", "A=x\n\nPYTHONPATH=$PYTHONPATH:lib\n")
    settings = "environment: {PATH: $PATH:/opt/bin, GOPATH: $GOPATHS, CLASSPATH: '${PATH}:x', TERM: $PATH}"
    passed_on = "is passed on as it stands"
    assert project.program_problems(f"command: x\nenvironment_files: [a.env]\n{settings}") == [
        f"warning: '$PYTHONPATH' {passed_on}: nothing expands in this file, but ${{PYTHONPATH}} in 'environment'",
        f"warning: environment.PATH: '$PATH' {passed_on}: write ${{PATH}} for the daemon's",
    ]


def test_a_missing_environment_file_is_an_error(project):
    assert project.program_problems("command: x\nenvironment_files: [gone.env]") == [
        f"environment_files[0]: cannot read the environment file {project.folder}/gone.env: no such file or directory"
    ]


def test_a_daemon_that_starts_does_without_an_environment_file_and_says_whose_program_lacks_it(project):
    project.write("one.env", "A=1\n")
    file = project.write(
        "programs.yaml",
        """
        programs:
          whole: {command: x, environment_files: [one.env]}
          short: {command: x, environment_files: [gone.env, one.env]}
        """,
    )
    loaded = load(file, environ={}, name="programs.yaml", starting=True)
    problem = f"cannot read the environment file {project.folder}/gone.env: no such file or directory"
    assert {name: program.unread for name, program in loaded.configuration.programs.items()} == {"whole": "", "short": problem}
    (warning,) = map(str, loaded.warnings)
    assert warning == (
        f"programs.yaml:4:43: warning: programs.short.environment_files[0]: {problem}; until it can be read, this program is not started"
    )
    project.write("gone.env", "")
    plan = diff(loaded.configuration, load(file, environ={}).configuration)
    assert plan.restarted() == {"short": ("environment_files",)}


def test_what_can_be_read_again_completes_its_programs_and_changes_nothing_else(project):
    text = """
        programs:
          whole: {command: x}
          short: {command: x, environment_files: [gone.env]}
          edited: {command: %s, environment_files: [gone.env]}
          still: {command: x, environment_files: [never.env]}
        """
    old = load(project.write("programs.yaml", text % "x"), environ={}, starting=True).configuration
    project.write("gone.env", "A=1\n")
    new = load(project.write("programs.yaml", text.replace("whole: {command: x}", "whole: {command: y}") % "y"), environ={}, starting=True)
    found = completed(old, new.configuration)
    assert (found.programs["short"].unread, found.programs["short"].environment) == ("", {"A": "1"})
    assert all(found.programs[name] is old.programs[name] for name in ("whole", "edited", "still"))
    assert diff(old, found).restarted() == {"short": ("environment", "environment_files")}
    assert diff(old, found, lambda program: program.environment == {"A": "1"}).restarted() == {}


def test_a_daemon_that_starts_refuses_an_environment_file_of_bad_lines(project):
    project.write("a.env", "nonsense\n")
    file = project.write("programs.yaml", "programs: {w: {command: x, environment_files: [a.env]}}")
    with pytest.raises(ConfigError, match=r"a\.env:1:1: expected NAME=value"):
        load(file, environ={}, starting=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: links of other users can be made by root only")
def test_a_link_that_a_programs_user_laid_gives_him_nobody_elses_variables(project):
    secret = project.write("secret.env", "A=1\n")
    link = project.folder / "a.env"
    link.symlink_to(secret)
    assert project.program("command: x\nenvironment_files: [a.env]").environment["A"] == "1"
    os.chown(link, 65501, 65501, follow_symlinks=False)
    (problem,) = project.program_problems("command: x\nenvironment_files: [a.env]")
    assert "cannot read the environment file" in problem and "a symbolic link on the way belongs to user 65501" in problem


def test_bad_lines_of_an_environment_file_are_named_there(project):
    project.write("a.env", "A=1\nnonsense\nB='open\n")
    problems = project.problems("programs: {w: {command: x, environment_files: [a.env]}}")
    assert problems == [f"{project.folder}/a.env:{line}:1: expected NAME=value, a comment or an empty line" for line in (2, 3)]


def test_an_environment_file_in_another_encoding_is_refused_where_that_shows(project):
    (project.folder / "a.env").write_bytes("A=1\nB=caf\N{LATIN SMALL LETTER E WITH ACUTE}\n".encode("latin-1"))
    problems = project.problems("programs: {w: {command: x, environment_files: [a.env]}}")
    assert problems == [f"{project.folder}/a.env:2:1: this is not UTF-8"]


def test_values_expand_from_the_daemons_environment_alone(project):
    project.write("a.env", "A=file")
    program = project.program('command: x\nenvironment_files: [a.env]\nenvironment: {B: "${A}", C: $A, D: $$A}', A="up")
    assert [program.environment[name] for name in "BCD"] == ["up", "$A", "$A"]
