"""Whatever stands in a file, loading it ends with a configuration or with problems."""

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisord_async.config import shape
from supervisord_async.config.diff import Plan, diff
from supervisord_async.config.load import load
from supervisord_async.config.secrets import masked
from supervisord_async.errors import ConfigError


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """One file for all the examples."""
    return tmp_path_factory.mktemp("fuzz") / "programs.yaml"


def holds(path, content):
    """These bytes are a configuration, or unsound with reasons."""
    path.write_bytes(content)
    try:
        configuration = load(path, environ={"A": "1"}, name="f.yaml").configuration
    except ConfigError as error:
        problems = error.problems
    else:
        masked(configuration)
        assert diff(configuration, configuration) == Plan(unchanged=len(configuration.programs))
        return
    assert any(not problem.warning for problem in problems)
    assert all(problem.line >= 0 and problem.column >= 1 and "\n" not in str(problem) for problem in problems)


WORDS = [
    "programs:",
    "web:",
    "command:",
    "x",
    "restart:",
    "{",
    "}",
    "[",
    "]",
    "- ",
    "\n",
    "\n  ",
    "\n    ",
    ": ",
    "&a ",
    "*a",
    "<<: ",
    "${A}",
]
WORDS += [
    "${B",
    "$$",
    "!!int ",
    "'",
    '"',
    "---\n",
    "? ",
    "| ",
    "> ",
    "#",
    "\t",
    "5s",
    "-1",
    "null",
    "x-y: ",
    "include: ",
    "defaults: ",
    "\x00",
    "é",
]


@given(st.lists(st.sampled_from(WORDS), max_size=40).map("".join))
@settings(max_examples=300)
def test_text_like_yaml_never_raises_anything_else(path, text):
    holds(path, text.encode())


@given(st.binary(max_size=200))
@settings(max_examples=100)
def test_bytes_never_raise_anything_else(path, content):
    holds(path, content)


PROGRAM_KEYS = list(shape.Program.__struct_fields__)
DAEMON_KEYS = list(shape.Daemon.__struct_fields__)
INNER_KEYS = sorted(
    {
        field
        for kind in vars(shape).values()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
        for field in kind.__struct_fields__
    }
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**6),
    st.floats(allow_nan=False),
    st.sampled_from(
        [
            "",
            "5s",
            "0s",
            "always",
            "never",
            "stdout",
            "none",
            "a",
            "web",
            "TERM",
            "${A}",
            "@every 5m",
            "* * * * *",
            "http://x",
            "x:1",
            "tcp://x:1",
            "022",
            "all",
            "{replica}",
        ]
    ),
    st.text(max_size=5),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(INNER_KEYS) | st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)
PROGRAMS = st.dictionaries(st.sampled_from(PROGRAM_KEYS), VALUES, max_size=5).map(lambda program: {"command": "x", **program})
FILES = st.fixed_dictionaries(
    {"programs": st.dictionaries(st.sampled_from(["web", "db", "all", "a b", "x-y"]), PROGRAMS, max_size=3)},
    optional={"defaults": PROGRAMS, "daemon": st.dictionaries(st.sampled_from(DAEMON_KEYS), VALUES, max_size=3)},
)


@given(FILES)
@settings(max_examples=400)
def test_any_values_of_known_keys_never_raise_anything_else(path, data):
    holds(path, yaml.safe_dump(data, allow_unicode=True).encode("utf-8", "replace"))
