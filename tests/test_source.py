"""A user's file and changes to it, each on text small enough to be read."""

from __future__ import annotations

import ast
import shutil
import subprocess
import textwrap
import traceback

import pytest

from unstuck.source import Edit, EditError, Source, argument, called, compiled, diff, edited, number_in, own_files


def source(text, file="train.py"):
    return Source(file, textwrap.dedent(text).lstrip("\n"))


def call_of(made, name):
    """The first call of a name."""
    return next(c for c in made.nodes(ast.Call) if called(c).rpartition(".")[2] == name)


def statement(made, text):
    """The statement that reads so."""
    return next(s for s in made.nodes(ast.stmt) if made.of(s) == text)


def run(code):
    names: dict = {}
    exec(code, names)
    return names


# ---------------------------------------------------------------------- text


@pytest.mark.parametrize(
    "text", ["x = f(1)\n", "# é ü 训练\nx = f(1)\n", "s = '训练'; x = f(1)", "\nif s:\n    'é'; x = f(1)"]
)
def test_spans_are_of_characters(text):
    made = Source("train.py", text)
    call = call_of(made, "f")
    assert made.of(call) == "f(1)"
    assert made.span(call) == (text.index("f(1)"), text.index("f(1)") + 4)


def test_spans_over_several_lines():
    made = source("""
        x = f(
            'é',
            g(1),  # 训
        )
    """)
    assert made.of(call_of(made, "f")) == "f(\n    'é',\n    g(1),  # 训\n)"


@pytest.mark.parametrize("between", ["\x0c", "\x1c", "\u2028", "\x85"])
def test_only_line_feeds_end_lines(between):
    """Unlike `str.splitlines`; Python's own lines are these."""
    made = Source("train.py", f"s = '{between}'\n# {between}\nx = f(1)\n")
    assert made.of(call_of(made, "f")) == "f(1)"


def test_a_mark_of_the_byte_order_is_left_as_it_is(tmp_path):
    path = tmp_path / "train.py"
    path.write_bytes(b"\xef\xbb\xbfx = f(1)\ny = 2\n")
    made = Source.read(path)
    call = call_of(made, "f")
    assert made.of(call) == "f(1)"
    assert edited(made, [made.replace(call, "3")]).encode() == b"\xef\xbb\xbfx = 3\ny = 2\n"
    assert run(compiled(made, [made.replace(call, "3")]))["x"] == 3


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"x = (\n", "line 1 is no Python"), (b"x = '\xff'\n", "can't be read"), (None, "can't be read"), (b"x = 1\0\n", "is no Python")],
)  # fmt: skip
def test_files_that_are_not_understood(tmp_path, data, words):
    path = tmp_path / "train.py"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(EditError, match=words):
        Source.read(path)


# ---------------------------------------------------------------------- places


def test_the_innermost_statement_on_a_line():
    made = source("""
        def f(x):
            for i in x:
                y = [
                    i,
                ]
            return y
    """)
    assert made.of(made.statement(4)) == made.of(made.statement(3))
    assert made.statement(3).targets[0].id == "y"
    assert isinstance(made.statement(2), ast.For)
    assert isinstance(made.statement(1), ast.FunctionDef)
    with pytest.raises(EditError, match="line 9"):
        made.statement(9)


def test_the_statement_that_a_node_is_in():
    made = source("opt.zero_grad(); loss.backward(); opt.step()\n")
    assert made.of(made.statement_of(call_of(made, "backward"))) == "loss.backward()"


def loops(text):
    """Heads of the loops that the call of `here` is in."""
    made = source(text)
    return [made.of(loop).splitlines()[0] for loop in made.loops(call_of(made, "here"))]


def test_loops_from_inside_out():
    assert loops("""
        for epoch in a:
            while b:
                if c:
                    here()
    """) == ["while b:", "for epoch in a:"]


def test_loops_through_functions():
    text = """
        def step(x):
            here(x)

        def train(model):
            model.train()
            for x in model:
                step(x)

        def main():
            for epoch in epochs:
                train(model)
                test(model)

        main()
    """
    assert loops(text) == ["for x in model:", "for epoch in epochs:"]


def test_loops_through_methods_and_closures():
    assert loops("""
        class Trainer:
            def train(self):
                self.model.train()
                def closure():
                    here()
                for x in self.x:
                    self.opt.step(closure)

        trainer = Trainer()
        for epoch in epochs:
            trainer.train()
    """) == ["for x in self.x:", "for epoch in epochs:"]


def test_loops_of_several_calls_are_known_where_they_are_the_same():
    text = """
        def run(train):
            for x in data:
                here()

        for epoch in epochs:
            run(True)
            run(False)
    """
    assert loops(text) == ["for x in data:", "for epoch in epochs:"]
    assert loops(textwrap.dedent(text) + "run(True)\n") == ["for x in data:"]


def test_functions_that_call_themselves():
    assert loops("""
        def f(n):
            for i in n:
                here()
                f(n - 1)
    """) == ["for i in n:"]
    assert loops("""
        def f():
            here()
            g()

        def g():
            for i in x:
                f()
    """) == ["for i in x:"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("use(0.1)", "0.1"),
        ("use(-1e-3)", "-1e-3"),
        ("use(2 ** 4)", "2 ** 4"),
        ("use(1 / 3)", "1 / 3"),
        ("n = 5\nuse(n)", "5"),
        ("n: int = 5\nuse(n)", "5"),
        ("n = 5\nn += 1\nuse(n)", "5"),
        ("n = 5\nn = 6\nuse(n)", None),
        ("n = 5\nfor n in range(3):\n    pass\nuse(n)", None),
        ("n, m = 5, 6\nuse(n)", None),
        ("n = m\nuse(n)", None),
        ("use(args.n)", None),
        ("use(True)", None),
        ("use('5')", None),
        ("use(1 / 0)", None),
        ("n = 5\ndef f():\n    use(n)", "5"),
        ("n = 5\ndef f():\n    n = 6\n    use(n)", "6"),
        ("n = 5\ndef f(n):\n    use(n)", None),
        ("def f(n=7):\n    use(n)\nf()", "7"),
        ("def f(n=7):\n    use(n)\nf(8)", "8"),
        ("def f(*, n):\n    use(n)\nf(n=8)", "8"),
        ("def f(n):\n    use(n)\nk = 9\nf(k)", "9"),
        ("def f(n):\n    use(n)\nf(8)\nf(9)", None),
        ("class A:\n    def f(self, m, n=1):\n        use(n)\nA().f(2, 3)", "3"),
        ("def f(n):\n    use(n)\n    f(n)\ndef g(n):\n    f(n)\nf(4)", None),
        ("use(lambda n: n)", None),
    ],
)
def test_constants(text, found):
    made = source(text)
    constant = made.constant(call_of(made, "use").args[0])
    assert found == (constant if constant is None else made.of(constant))


def test_a_function_that_hands_an_argument_to_itself_has_no_constant():
    made = source("def f(n):\n    g(n)\n    use(n)\ndef g(n):\n    f(n)\n")
    assert made.constant(call_of(made, "use").args[0]) is None


def test_names():
    made = source("""
        x, y = load()
        for i, z in data:
            total += x
        w: int = 3
        def f(v): ...
    """)
    assert [len(made.binds(n)) for n in ("x", "y", "z", "w", "total", "v")] == [1, 1, 1, 1, 0, 0]
    assert made.assigned("x") == [], "not alone"
    assert made.free("x", "mean") == "mean"
    assert made.free("x", "v") == "v_"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("import torch", {"torch": "torch", "torch.nn": "torch.nn", "torch.nn.functional": "torch.nn.functional"}),
        ("import torch as t", {"torch": "t", "torch.optim": "t.optim"}),
        ("from torch import nn", {"torch": "", "torch.nn": "nn", "torch.nn.functional": "nn.functional"}),
        ("import torch.nn as n", {"torch": "", "torch.nn": "n"}),
        ("import torch.nn.functional as F", {"torch.nn.functional": "F", "torch.nn": ""}),
        ("from torch.nn import functional", {"torch.nn.functional": "functional"}),
        ("from .torch import nn", {"torch.nn": ""}),
        ("def f():\n    import torch", {"torch": ""}),
        ("try:\n    import torch\nexcept ImportError:\n    pass", {"torch": "torch"}),
    ],
)
def test_aliases(text, names):
    made = source(text)
    assert {name: made.alias(name) for name in names} == names


def test_names_of_calls_and_their_arguments():
    made = source("a.b.c(1, *x, k=2); f()(3); (a + b).sum(); g(1, 2)\n")
    assert [called(c) for c in made.nodes(ast.Call)] == ["a.b.c", "", "f", ".sum", "g"]
    assert number_in(argument(call_of(made, "c"), "k")) == 2
    assert argument(call_of(made, "c"), "x", 1) is None, "behind a star nobody knows"
    assert number_in(argument(call_of(made, "g"), "x", 1)) == 2
    assert argument(call_of(made, "g"), "x", 2) is None


# ---------------------------------------------------------------------- edits


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("f()", "f(k=9)"),
        ("f(1)", "f(1, k=9)"),
        ("f(1,)", "f(1, k=9,)"),
        ("f((1))", "f((1), k=9)"),
        ("f(((1)), )", "f(((1)), k=9, )"),
        ("f(g(1))", "f(g(1), k=9)"),
        ("f((1)  # )\n)", "f((1), k=9  # )\n)"),
        ("f(\n    1,\n    2,\n)", "f(\n    1,\n    2, k=9,\n)"),
        ("f(1, k=2)", "f(1, k=9)"),
        ("f(1, k=(2))", "f(1, k=(9))"),
        ("f(*a)", "f(*a, k=9)"),
        ("f('é')", "f('é', k=9)"),
    ],
)
def test_keywords(text, becomes):
    made = source(text)
    assert edited(made, [made.keyword(call_of(made, "f"), "k", "9")]) == becomes


def test_keywords_by_position():
    made = source("f(a, 1)")
    assert edited(made, [made.keyword(call_of(made, "f"), "k", "9", position=1)]) == "f(a, 9)"
    assert edited(made, [made.keyword(call_of(made, "f"), "k", "9", position=2)]) == "f(a, 1, k=9)"


@pytest.mark.parametrize("text", ["f(**a)", "f(*a)", "f(i for i in a)"])
def test_keywords_that_may_be_there_already(text):
    made = source(text)
    with pytest.raises(EditError, match="gives"):
        made.keyword(call_of(made, "f"), "k", "9", position=1)


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("x = 1\n", "import torch\nx = 1\n"),
        ("import os\nx = 1\n", "import os\nimport torch\nx = 1\n"),
        ('"""What it is."""\nx = 1\n', '"""What it is."""\nimport torch\nx = 1\n'),
        ('"""A\nB."""\n\nfrom a import b\nx = 1\n', '"""A\nB."""\n\nfrom a import b\nimport torch\nx = 1\n'),
        ("import os\nx = 1\nimport sys\n", "import os\nimport torch\nx = 1\nimport sys\n"),
        ("import os; import sys\nx = 1\n", "import os; import sys; import torch\nx = 1\n"),
        ("import torch\nx = 1\n", None),
        ("import torch.nn\nx = 1\n", None),
        ("import torch as t\nx = 1\n", "import torch as t\nimport torch\nx = 1\n"),
        ("# comment\nx = 1\n", "# comment\nimport torch\nx = 1\n"),
    ],
)  # fmt: skip
def test_imports(text, becomes):
    made = Source("train.py", text)
    assert edited(made, made.imports("torch", "import torch")) == (becomes or text)


@pytest.mark.parametrize(
    ("text", "at", "before", "after"),
    [
        ("a\nb\n", "b", "a\nNEW\nb\n", "a\nb\nNEW\n"),
        ("a\nb", "b", "a\nNEW\nb", "a\nb\nNEW"),
        ("if a:\n\tb  # why\nc\n", "b", "if a:\n\tNEW\n\tb  # why\nc\n", "if a:\n\tb  # why\n\tNEW\nc\n"),
        ("a; b; c\n", "b", "a; NEW; b; c\n", "a; b; NEW; c\n"),
        ("a; b  # why\n", "b", "a; NEW; b  # why\n", "a; b; NEW  # why\n"),
        ("a; b\n", "a", "NEW\na; b\n", "a; NEW; b\n"),
        ("for i in x: b\nc\n", "b", "for i in x: NEW; b\nc\n", "for i in x: b; NEW\nc\n"),
        ("f(\n  a\n)\nc\n", "f(\n  a\n)", "NEW\nf(\n  a\n)\nc\n", "f(\n  a\n)\nNEW\nc\n"),
    ],
)
def test_lines_before_and_after(text, at, before, after):
    made = Source("train.py", text)
    assert edited(made, [made.before(statement(made, at), ["NEW"])]) == before
    assert edited(made, [made.after(statement(made, at), ["NEW"])]) == after


def test_lines_that_need_a_line_of_their_own():
    made = source("a; b\n")
    for lines in (["if c:", "    d"], ["if c:"]):
        with pytest.raises(EditError, match="several statements"):
            made.before(statement(made, "b"), lines)


def test_lines_before_what_is_decorated():
    made = source("@a\n@b\ndef f(): ...\n")
    assert edited(made, [made.before(made.tree.body[0], ["c", "", "d"])]) == "c\n\nd\n@a\n@b\ndef f(): ...\n"


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("a\nb  # why\nc\n", "a\nc\n"),
        ("a\nif a:\n    b\n", "a\nif a:\n    pass\n"),
        ("a\nif a:\n    c\nelse:\n    b\n", "a\nif a:\n    c\nelse:\n    pass\n"),
        ("a; b; c\n", "a; pass; c\n"),
        ("a\nb", "a\n"),
    ],
)
def test_statements_that_are_taken_away(text, becomes):
    made = Source("train.py", text)
    assert edited(made, [made.without(statement(made, "b"))]) == becomes


# ---------------------------------------------------------------------- several edits


def test_several_edits():
    made = source("lr = 0.1\nopt = SGD(p, lr)\nfor i in range(3):\n    step()\n")
    edits = [
        made.before(statement(made, "step()"), ["clip()"]),
        made.replace(made.assigned("lr")[0].value, "0.01"),
        made.keyword(call_of(made, "SGD"), "momentum", "0.9"),
        made.after(statement(made, "step()"), ["later()"]),
    ]
    text = "lr = 0.01\nopt = SGD(p, lr, momentum=0.9)\nfor i in range(3):\n    clip()\n    step()\n    later()\n"
    assert edited(made, edits) == edited(made, reversed(edits)) == text


def test_an_edit_twice_is_once():
    made = source("x = 1\n")
    assert edited(made, [made.before(made.tree.body[0], ["a"])] * 2) == "a\nx = 1\n"


@pytest.mark.parametrize(("first", "second"), [((4, 9), (4, 9)), ((4, 9), (6, 7)), ((4, 9), (8, 12))])
def test_edits_of_the_same_place(first, second):
    made = source("x = f(1, 2) + 3\n")
    with pytest.raises(EditError, match="same place"):
        edited(made, [Edit("train.py", *first, "a"), Edit("train.py", *second, "b")])


def test_edits_beside_each_other():
    made = source("x = ab\n")
    assert (
        edited(made, [Edit("train.py", 4, 5, "1"), Edit("train.py", 5, 6, "2"), Edit("train.py", 5, 5, " + ")])
        == "x = 1 + 2\n"
    )


def test_additions_at_one_place_by_rank_and_as_given():
    made = source("x = 1\n")
    lines = [("c", 2), ("a", -9), ("d", 2), ("b", 0)]
    assert edited(made, [made.before(made.tree.body[0], [line], rank=r) for line, r in lines]) == "a\nb\nc\nd\nx = 1\n"


def test_edits_of_other_files_are_not_of_this():
    assert edited(source("x = 1\n"), [Edit("other.py", 0, 5, "y")]) == "x = 1\n"


@pytest.mark.parametrize("made", [edited, compiled])
def test_what_is_no_python(made):
    with pytest.raises(EditError, match=r"train\.py: the changed line 2 is no Python: y = \("):
        made(source("x = 1\ny = 2\n"), [Edit("train.py", 10, 11, "(")])


def test_ends_of_lines_stay_as_they_are(tmp_path):
    path = tmp_path / "train.py"
    path.write_bytes(b"import os\r\nx = f(\r\n    1,\r\n)\r\ny = 2\r\n")
    made = Source.read(path)
    edits = [
        made.replace(call_of(made, "f"), "3"),
        made.after(made.tree.body[-1], ["z = 4"]),
        *made.imports("re", "import re"),
    ]
    assert edited(made, edits).encode() == b"import os\r\nimport re\r\nx = 3\r\ny = 2\r\nz = 4\r\n"
    assert run(compiled(made, edits))["z"] == 4


# ---------------------------------------------------------------------- code


def line_of_failure(code):
    """The line on which code fails, as its traceback tells."""
    try:
        exec(code, {})
    except ZeroDivisionError as error:
        assert "".join(traceback.format_exception(error))
        return traceback.extract_tb(error.__traceback__)[-1].lineno
    raise AssertionError("it does not fail")


@pytest.mark.skipif(shutil.which("patch") is None, reason="patch isn't there")
@pytest.mark.parametrize(
    "text", ["a = 1\nb = 2\n", "a = 1\r\nb = 2\r\n", "a = 1\nb = 2", "a = '\x0c'\r\nb = 2", "b = 2"]
)
def test_a_diff_is_of_the_lines_as_they_are(tmp_path, text):
    made = Source("train.py", text)
    changed = edited(made, [made.replace(number, "3") for number in made.nodes(ast.Constant) if made.of(number) == "2"])
    assert changed == text.replace("2", "3")
    told = diff(made, changed, name="train.py")
    assert [line[0] for line in told.split("\n")[3:] if line and line[0] in "+-"] == ["-", "+"], "nothing else changes"
    (tmp_path / "train.py").write_bytes(text.encode())
    subprocess.run(["patch", "-p1", "--binary", "-s"], input=told.encode(), cwd=tmp_path, check=True)
    assert (tmp_path / "train.py").read_bytes() == changed.encode()


def test_lines_are_numbered_as_in_the_original():
    made = source("""
        import os
        x = 0
        y = [
            1,
        ]
        for i in range(2):
            x = i
        1 / 0
    """)
    first, last = made.tree.body[1], made.tree.body[-1]
    edits = [
        *made.imports("re", "import re"),
        made.before(first, ["for j in range(3):", "    pass"]),
        made.replace(made.tree.body[2].value, "[1, 2, 3]"),
        made.after(first, ["z = 1"]),
        made.before(made.statement(7), ["z = 2", "z = 3"]),
    ]
    assert line_of_failure(compiled(made, [])) == 8
    assert line_of_failure(compiled(made, edits)) == 8
    assert line_of_failure(compiled(made, [made.replace(last, "(1 /\n0\n)")])) == 8
    assert line_of_failure(compiled(made, [made.without(made.tree.body[2])])) == 8


def test_added_lines_have_the_number_of_the_one_they_follow():
    made = source("x = 1\nif x:\n    y = 2\nz = 3\n")
    inner = made.statement(3)
    for edit, line in [
        (made.before(made.tree.body[0], ["1 / 0"]), 1),
        (made.after(made.tree.body[0], ["1 / 0"]), 1),
        (made.before(inner, ["1 / 0"]), 2),
        (made.after(inner, ["w = 1", "1 / 0"]), 3),
        (made.after(made.tree.body[-1], ["1 / 0"]), 4),
    ]:
        assert line_of_failure(compiled(made, [edit])) == line
    assert line_of_failure(compiled(Source("train.py", "x = 1\nz = 3"), [Edit("train.py", 11, 11, "\n1 / 0")])) == 2


def test_tracebacks_show_the_users_lines(tmp_path):
    path = tmp_path / "train.py"
    path.write_text("x = 0\n\ndef f(n):\n    return n / x\n\nf(1)\n")
    made = Source.read(path)
    code = compiled(made, [made.before(made.tree.body[1], ["a = 1", "b = 2"])])
    with pytest.raises(ZeroDivisionError) as caught:
        exec(code, {})
    shown = "".join(traceback.format_exception(caught.value))
    assert f'File "{path}", line 6' in shown
    assert "    return n / x\n" in shown


def test_code_goes_by_another_name_where_that_is_wanted():
    code = compiled(source("from __future__ import annotations\nx: nowhere = 1\n"), [], filename="shown.py")
    assert code.co_filename == "shown.py"
    assert run(code)["x"] == 1


def test_code_with_all_that_has_lines():
    made = source('''
        """Words."""
        @f
        class A(B, k=1):
            """Words."""
            x: int = 3

        try:
            async def g(a, *b, c=1, **d):
                async with a as b:
                    await c
        except* (E, F) as e:
            raise
        match a:
            case {"b": [1, *rest]} if (n := 3):
                s = f"""
                    {a!r:>{b}}
                {c}
                """
    ''')
    edit = made.before(made.tree.body[0], ["import os", "import re"])
    lines = [n.lineno for n in ast.walk(ast.parse(made.text)) if hasattr(n, "lineno")]
    assert max(line for _, _, line in compiled(made, [edit]).co_lines() if line) <= max(lines)


def test_the_files_that_are_a_users_own(tmp_path):
    (tmp_path / "pkg" / "deep").mkdir(parents=True)
    texts = {
        "train.py": "import torch, near\nfrom pkg.model import Net\nfrom pkg import other\n",
        "near.py": "import train\n", "unused.py": "", "pkg/__init__.py": "", "pkg/model.py": "from .deep import x\nfrom . import beside\n",
        "pkg/other.py": "no python here", "pkg/beside.py": "", "pkg/deep/__init__.py": "",
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    found = {str(path.relative_to(tmp_path)) for path in own_files(tmp_path / "train.py")}
    assert found == {*texts} - {"unused.py"}
    assert own_files(tmp_path / "nowhere.py") == []
