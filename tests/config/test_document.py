"""YAML as plain data with positions: what is read, and what is refused."""

import gc

import pytest

from supervisord_async.config import document as document_module
from supervisord_async.config import nodes
from supervisord_async.config.document import Document


def read(text, **variables):
    return Document(text, name="f.yaml", path="/f.yaml", variables=variables)


def complaints(text, **variables):
    return [str(problem) for problem in read(text, **variables).problems]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("5", 5),
        ("-1", -1),
        ("0x10", 16),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("true", True),
        ("off", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("022", "022"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("'5'", "5"),
        ('"true"', "true"),
        (".inf", ".inf"),
        ("1e999", "1e999"),
        ("9" * 5000, "9" * 5000),
        ("=", "="),
    ],
)
def test_scalars_mean_what_people_think(written, meant):
    data = read(f"k: {written}").data
    assert data == {"k": meant}
    assert type(data["k"]) is type(meant)


def test_environment_and_commands_are_the_text_that_was_written():
    data = read("environment: {A: 1.10, B: yes, C: 022, D: 'x', E: }\ncommand: [sleep, 60, no, 1e3, ~]").data
    assert data["environment"] == {"A": "1.10", "B": "yes", "C": "022", "D": "x", "E": None}
    assert data["command"] == ["sleep", "60", "no", "1e3", "~"]


def test_programs_may_be_called_like_keys_that_hold_text():
    assert read("programs: {command: {replicas: 2}, environment: {x-note: 5, replicas: 3}}").data == {
        "programs": {"command": {"replicas": 2}, "environment": {"replicas": 3}}
    }


def test_an_unquoted_value_is_read_after_expansion():
    assert read("a: ${N}\nb: '${N}'\nc: ${M:-}", N="4").data == {"a": 4, "b": "4", "c": None}


def test_x_keys_are_left_out_and_serve_as_anchors():
    text = "x-base: &base {a: 1, b: 2, unset: '${NOT_SET_BUT_UNUSED:-}'}\nk: {<<: *base, b: 3, x-note: n}\nenvironment: {x-mine: v}"
    assert read(text).data == {"k": {"b": 3, "a": 1, "unset": ""}, "environment": {"x-mine": "v"}}


def test_merges_take_lists_and_the_first_source_wins():
    assert read("x-1: &a {k: 1, m: 1}\nx-2: &b {k: 2, n: 2}\nv:\n  <<: [*a, *b]\n  m: 0").data["v"] == {"m": 0, "k": 1, "n": 2}


def test_positions_are_those_of_values_and_of_the_keys_of_collections():
    text = "a:\n  b: 5\n  c:\n    - x\n    - y\nx-z: &z\n  q: 1\nd:\n  <<: *z\ne:\n"
    document = read(text)
    assert document.position(("a", "b")) == (2, 6)
    assert document.key_position(("a", "b")) == (2, 3)
    assert document.position(("a", "c")) == (3, 3)
    assert document.position(("a", "c", 1)) == (5, 7)
    assert document.position(("d", "q")) == (7, 6)
    assert document.position(("e",)) == (10, 1)
    assert document.position(("a", "missing", "deeper")) == (1, 1)


def test_duplicate_keys_name_both_places():
    assert complaints("a: 1\nb:\n  c: 1\n  c: 2") == ["f.yaml:4:3: b.c: duplicate key; it was given before at f.yaml:3:3"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: !!python/object:os.system x", "f.yaml:1:4: a: tags such as tag:yaml.org,2002:python/object:os.system are not allowed"),
        ("a: !foo [1]", "f.yaml:1:4: a: tags such as !foo are not allowed"),
        ("a: 1\n---\nb: 1", "f.yaml:2:1: expected a single document, found another one after '---'"),
        ("a: &a [*a]", "f.yaml:1:4: a[0]: the alias refers to the very collection that holds it"),
        ("a: &a {<<: *a}", "f.yaml:1:4: a: the alias refers to the very collection that holds it"),
        ("a: &a {b: {<<: *a}}", "f.yaml:1:4: a.b: the alias refers to the very collection that holds it"),
        ("[1, 2]: x", "f.yaml:1:1: expected a name as key, found a collection"),
        ("<<: 5\na: 1", "f.yaml:1:5: expected a mapping to merge by '<<'"),
        ('a: "\\0"', "f.yaml:1:4: a: a NUL character is not allowed"),
        ("a: \x01", "f.yaml:1:4: a control character is not allowed here; in double quotes write it as an escape such as \\x01"),
        ("a:\n\t- b", "f.yaml:2:1: a tab cannot indent; use spaces"),
        ("- a\n- \t- b", "f.yaml:2:3: a tab cannot indent; use spaces"),
        ("a: @x", "f.yaml:1:4: a value cannot begin with '@'; put it into quotes"),
        ("a: */5 * * * *", "f.yaml:1:4: a value cannot begin with '*'; put it into quotes"),
        ("a:\n  - *.py", "f.yaml:2:5: a value cannot begin with '*'; put it into quotes"),
        ("a: & b", "f.yaml:1:4: a value cannot begin with '&'; put it into quotes"),
        ("a: >b", "f.yaml:1:4: a value cannot begin with '>'; put it into quotes"),
        ("a:\n  b: c\n\td: e", "f.yaml:3:1: a tab cannot indent; use spaces"),
        ("a: *x", "f.yaml:1:4: the alias refers to an anchor that is not defined before it; put text that begins with '*' into quotes"),
        ("a: b: c", "f.yaml:1:5: a ':' is not allowed here; check the indentation, or put a value that holds ': ' into quotes"),
        ("a: [1, 2", "f.yaml:2:1: expected ',' or ']': the list that began with '[' is not closed (line 1)"),
        ("a: [", "f.yaml:2:1: a value is missing here; is a bracket before it not closed?"),
        ("a: 'x", "f.yaml:1:6: a quote is opened and never closed"),
        ("- a\nb: c", "f.yaml:2:1: expected a further '-' of the list; is the indentation the same as on the lines around it?"),
        ("a: {b: ${C}}", "'${…}' needs quotes"),
        ("a: &x 1\nb: &x 2", "this anchor's name was used before on line 1"),
        ("a: ${NOPE}", "f.yaml:1:4: a: the variable NOPE is not set"),
    ],
)
def test_what_is_refused_says_where_and_why(text, complaint):
    found = complaints(text)
    assert len(found) == 1
    assert complaint in found[0]


def test_deep_nesting_is_refused_without_falling_over():
    assert complaints("[" * 100_000) == ["f.yaml:1:1: collections are nested deeper than 64"]


def test_aliases_that_unfold_to_a_billion_are_refused(monkeypatch):
    monkeypatch.setattr(document_module, "MAX_VALUES", 5000)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert complaints("\n".join(lines)) == ["f.yaml:1:1: aliases unfold to more than 5000 values; write less by reference"]


def test_a_long_list_that_is_named_often_is_refused(monkeypatch):
    """A hundred collections, and millions of values in them."""
    monkeypatch.setattr(document_module, "MAX_VALUES", 5000)
    text = f"a: &a [{', '.join('x' * 1000)}]\nb: [{', '.join(['*a'] * 100)}]"
    assert complaints(text) == ["f.yaml:1:1: aliases unfold to more than 5000 values; write less by reference"]


def test_merges_that_unfold_to_a_billion_end_too(monkeypatch):
    monkeypatch.setattr(document_module, "MAX_VALUES", 5000)
    lines = ["x-0: &a0 {k: v}"] + [f"x-{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12)]
    found = complaints("\n".join([*lines, "k: *a11"]))
    assert found == ["f.yaml:1:1: aliases unfold to more than 5000 values; write less by reference"]


def test_long_chains_of_aliases_are_refused_without_falling_over():
    lists = "\n".join(["a0: &a0 [x]"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 500)])
    assert any("aliases lead deeper than 64" in complaint for complaint in complaints(lists))
    merges = "\n".join(["x-0: &a0 {k: v}"] + [f"x-{n}: &a{n} {{<<: *a{n - 1}}}" for n in range(1, 5000)] + ["k: *a4999"])
    document = read(merges)
    assert any("aliases lead deeper than 64" in str(problem) for problem in document.problems)
    assert document.position(("k", "k")) == (1, 14)


def test_the_pure_parser_reads_the_same(monkeypatch):
    text = "a: [1, 'two', {b: ~}]\nx-c: &c {d: 5}\ne: {<<: *c}\nf: !foo x\n"
    fast = read(text)
    monkeypatch.setattr(nodes, "_Parser", nodes.PureParser)
    slow = read(text)
    assert slow.data == fast.data
    assert slow.problems == fast.problems
    assert slow.position(("e", "d")) == fast.position(("e", "d"))


def test_nodes_live_while_the_data_is_made_and_again_when_a_position_is_asked_for():
    """They weigh more than all else that a load makes, and what is made after them would keep their memory from being given back."""

    def living():
        gc.collect()
        return sum(isinstance(thing, nodes.Node) for thing in gc.get_objects())

    before = living()
    document = read("a: {b: [1, 2]}\nc: d")
    assert document.depth(("a", "b", 1)) == 3
    assert document.depth(("a", "b", 2)) == 2
    assert living() == before
    assert document.position(("a", "b", 1)) == (1, 12)
    assert living() > before


@pytest.mark.parametrize("text", ["", "# nothing", "---\n"])
def test_a_file_without_a_document_has_no_data(text):
    assert read(text).data is None


def test_a_scalar_may_be_as_deep_as_collections_may():
    text = "[" * nodes.MAX_DEPTH + "x" + "]" * nodes.MAX_DEPTH
    assert complaints(text) == []
    assert complaints(f"[{text}]") == [f"f.yaml:1:1: collections are nested deeper than {nodes.MAX_DEPTH}"]
