"""A treated script is the program that Python runs, but for the change."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import unstuck
from unstuck.source import Edit

WATCHER = Path(unstuck.__file__).parent / "watcher"
TELL = """
import sys, json
main = sys.modules["__main__"]
names = sorted(n for n in vars(main) if n.startswith("__"))
told = [sys.argv, __file__, __name__, sys.path, names, main.__dict__ is globals(), sorted(set(vars(main)) - set(names))]
print(json.dumps(told), __loader__.name)
"""


@pytest.fixture
def folder(tmp_path):
    def write(**files):
        for name, text in files.items():
            path = tmp_path / (name.replace("__in__", "/") + ".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def plain(folder, *args, **options):
    command = [sys.executable, *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False, **options)


def treated(folder, *args, edits=(), watched=False, python=(), **more):
    told = folder / "edits.json"
    told.write_text(json.dumps([[e.file, e.start, e.end, e.text, e.rank] for e in edits]))
    settings = {"folder": str(folder), "parent": os.getpid(), "budget": 0.02, "edits": str(told), **more}
    path = os.pathsep.join([str(WATCHER / "inject"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "UNSTUCK_RUN": json.dumps(settings), **({"PYTHONPATH": path} if watched else {})}
    return plain(folder, *python, str(WATCHER / "treated.py"), *args, env=environment)


def change(file, old, new):
    text = Path(file).read_text()
    start = text.index(old)
    return Edit(str(file), start, start + len(old), new)


def alike(one, other):
    assert (one.returncode, one.stdout, one.stderr) == (other.returncode, other.stdout, other.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    "args", [["tell.py", "--rate", "1"], ["sub/tell.py"], ["-m", "sub.tell", "a", "-m"], ["sub"], ["link.py"]]
)
def test_arguments_path_and_main_are_as_under_python(folder, args):
    where = folder(tell=TELL, sub__in__tell=TELL, sub____main__="")
    (where / "sub" / "__main__.py").write_text(TELL)
    (where / "link.py").symlink_to(where / "sub" / "tell.py")
    expected = plain(where, *args)
    assert expected.returncode == 0
    alike(treated(where, *args), expected)


def test_a_safe_path_stays_without_the_scripts_folder(folder):
    where = folder(tell=TELL)
    alike(treated(where, "tell.py", python=["-P"]), plain(where, "-P", "tell.py"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "import sys\nprint('out')\nsys.exit(7)\n",
        "import sys\nsys.exit('a reason')\n",
        "import os\nos._exit(3)\n",
        "raise KeyboardInterrupt\n",
        "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n",
        "def outer():\n    inner()\n\ndef inner():\n    raise ValueError('mine')\n\nouter()\n",
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise ValueError('mine') from error\n",
        "def broken(:\n",
        "import sys\nassert sys.excepthook is sys.__excepthook__\nsys.excepthook = lambda *_: print('own hook')\n1 / 0\n",
    ],
)
def test_it_ends_as_under_python(folder, text):
    where = folder(script=text)
    alike(treated(where, "script.py"), plain(where, "script.py"))


def test_a_module_that_is_not_there_is_told_as_python_tells_it(folder):
    where = folder(other="")
    done = treated(where, "-m", "nowhere")
    assert (done.returncode, done.stderr) == (1, plain(where, "-m", "nowhere").stderr)


def test_the_change_is_made_and_the_file_stays(folder):
    where = folder(script="rate = 1e-6\nprint(rate, __name__ == '__main__')\n")
    text = (where / "script.py").read_text()
    done = treated(where, "script.py", edits=[change(where / "script.py", "1e-6", "0.01")])
    assert done.stdout == "0.01 True\n"
    assert (where / "script.py").read_text() == text


def test_paths_of_changes_may_be_relative_and_the_script_may_go_elsewhere(folder):
    where = folder(script="import os\nos.chdir('/')\nimport parts\nprint(parts.rate)\n", parts="rate = 1e-6\n")
    edit = change(where / "parts.py", "1e-6", "0.01")
    done = treated(where, "script.py", edits=[Edit("parts.py", edit.start, edit.end, edit.text)])
    assert done.stdout == "0.01\n"


@pytest.mark.parametrize(
    "how", ["import pack.parts as parts", "import importlib; parts = importlib.import_module('pack.parts')"]
)
def test_an_imported_file_is_changed_also_when_it_was_compiled_before(folder, how):
    where = folder(script=f"{how}\nprint(parts.rate())\n", pack__in__parts="def rate():\n    return 1e-6\n")
    writing = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    assert plain(where, "script.py", env=writing).stdout == "1e-06\n"
    assert list(where.glob("pack/__pycache__/parts*.pyc"))
    edits = [change(where / "pack" / "parts.py", "1e-6", "0.01")]
    assert treated(where, "script.py", edits=edits).stdout == "0.01\n"
    assert treated(where, "-m", "script", edits=edits).stdout == "0.01\n"
    assert plain(where, "script.py").stdout == "1e-06\n"


def test_modules_and_folders_are_changed_as_well(folder):
    where = folder(pack__in__script="rate = 1e-6\nprint(rate)\n")
    (where / "pack" / "__main__.py").write_text("rate = 1e-6\nprint(rate)\n")
    assert (
        treated(where, "-m", "pack.script", edits=[change(where / "pack" / "script.py", "1e-6", "1")]).stdout == "1\n"
    )
    assert treated(where, "pack", edits=[change(where / "pack" / "__main__.py", "1e-6", "2")]).stdout == "2\n"


def test_lines_keep_their_numbers(folder):
    text = "import sys\nx = 1\n\n\ndef fail():\n    y = 2\n    raise ValueError(sys._getframe().f_lineno)\n\n\nfail()\n"
    where = folder(script=text)
    path = where / "script.py"
    edits = [
        Edit(str(path), text.index("x = 1"), text.index("x = 1"), "import os\nimport re\n"),
        Edit(str(path), text.index("    y"), text.index("    y"), "    z = 3\n    w = 4\n"),
    ]
    done = treated(where, "script.py", edits=edits)
    alike(done, plain(where, "script.py"))
    assert f'File "{path}", line 10, in <module>' in done.stderr
    assert done.stderr.endswith("ValueError: 7\n")


def test_what_cannot_be_changed_is_an_error_with_its_reason(folder):
    where = folder(script="rate = 1\n")
    done = treated(where, "script.py", edits=[change(where / "script.py", "1", "1 1")])
    assert done.returncode == 1
    assert "the changed line 1 is no Python" in done.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_classes_of_the_scripts_own_are_pickled(folder, how):
    text = """
import pickle
import multiprocessing
class Own:
    def __init__(self, value): self.value = value
def double(own): return Own(2 * own.value)
if __name__ == "__main__":
    again = pickle.loads(pickle.dumps(Own(3)))
    with multiprocessing.get_context("HOW").Pool(1) as pool:
        print(type(again) is Own, again.value, pool.map(double, [again])[0].value)
"""
    where = folder(script=text.replace("HOW", how))
    done = treated(where, "script.py", edits=[change(where / "script.py", "Own(3)", "Own(4)")])
    assert (done.stdout, done.stderr) == ("True 4 8\n", "")


LOADER = """
import torch
from torch.utils.data import DataLoader, Dataset
FACTOR = 1
class Rows(Dataset):
    def __len__(self): return 4
    def __getitem__(self, i): return torch.tensor([float(FACTOR * i)])
if __name__ == "__main__":
    print([b.flatten().tolist() for b in DataLoader(Rows(), batch_size=2, num_workers=1)])
    raise ValueError("mine")
"""


@pytest.mark.slow
def test_workers_see_the_change_and_a_watched_traceback_is_the_scripts_own(folder):
    where = folder(script=LOADER)
    done = treated(where, "script.py", edits=[change(where / "script.py", "= 1\n", "= 10\n")], watched=True, seed=3)
    assert done.stdout == "[[0.0, 10.0], [20.0, 30.0]]\n"
    assert done.stderr == plain(where, "script.py").stderr


@pytest.mark.slow
def test_random_and_numpy_seeded_before_torch_is_imported_are_as_they_were(folder):
    text = "import random, numpy\nrandom.seed(5); numpy.random.seed(6)\nimport torch\nprint(random.random(), numpy.random.rand())\n"
    where = folder(script=text)
    expected = plain(where, "script.py").stdout
    assert treated(where, "script.py", watched=True, seed=0).stdout == expected
    assert treated(where, "script.py", watched=True, seed=1).stdout != expected
