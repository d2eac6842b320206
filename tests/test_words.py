"""What is said in sentences for people can be taken as it stands."""

import shlex

import pytest

from supervisord_async.words import shell_word


@pytest.mark.parametrize("path", ["programs.yaml", "/srv/shop-1/a_b.yaml", "/srv/my shop/x.yaml", "/srv/$(id)", "été.yaml", "a'b", ""])
def test_a_path_is_one_word_of_a_shell(path: str) -> None:
    assert shlex.split(shell_word(path)) == [path]


def test_a_plain_path_is_left_as_it_is() -> None:
    assert shell_word("/srv/shop-1/a_b.yaml") == "/srv/shop-1/a_b.yaml"
