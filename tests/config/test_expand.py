"""Variables in values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_async.config.expand import ExpansionError, expand

VARIABLES = {"A": "one", "EMPTY": "", "DOLLAR": "${A}"}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("${A}", "one"),
        ("x${A}y${A}z", "xoneyonez"),
        ("${B:-two}", "two"),
        ("${A:-two}", "one"),
        ("${EMPTY:-two}", "two"),
        ("[${EMPTY}]", "[]"),
        ("${B:-}", ""),
        ("${B:-${A}}", "one"),
        ("${B:-{x}}", "{x}"[:-1] + "}"),
        ("$HOME stays, $5 too, and a$", "$HOME stays, $5 too, and a$"),
        ("$$", "$"),
        ("$${A}", "${A}"),
        ("$$$$", "$$"),
        ("${DOLLAR}", "${A}"),
    ],
)
def test_variables_stand_for_their_values(written, meant):
    assert expand(written, VARIABLES) == meant


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("${B}", "the variable B is not set in the daemon's environment"),
        ("${B}", r"only a shell expands: \$B, with shell: true"),
        ("${A", "never closed"),
        ("${}", "is not a variable"),
        ("${1}", "is not a variable"),
        ("${A-x}", "is not a variable"),
        ("${A:?x}", "is not a variable"),
        ("${X:-" * 100 + "}" * 100, "deep at most"),
    ],
)
def test_what_cannot_expand_says_why(written, complaint):
    with pytest.raises(ExpansionError, match=complaint):
        expand(written, VARIABLES)


@given(st.text(alphabet="${}:-AB ", max_size=60))
def test_any_text_expands_or_says_why(text):
    try:
        expand(text, VARIABLES)
    except ExpansionError as error:
        assert str(error)
