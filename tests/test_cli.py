"""The command line as a user meets it: tests run it as a process, or in this one where it only reads."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from unstuck.cli import main
from unstuck.evidence import Layer, LossCall, Program, Record, Task
from unstuck.store import Writer

TRAINING = """
import sys, torch
from torch import nn
torch.manual_seed(0)
x = torch.randn(64, 8); y = x[:, :3].argmax(1)
net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
for step in range(120):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(net(x), y)
    loss.backward()
    optimizer.step()
print("loss", loss.item().hex())
"""
BROADCAST = TRAINING.replace("nn.functional.cross_entropy(net(x), y)", "nn.functional.mse_loss(net(x)[:, :1], x[:, 0])")


def unstuck(*args, folder, **options):
    command = [sys.executable, "-m", "unstuck", *map(str, args)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False, **options)


@pytest.fixture
def unstuck_here(tmp_path, monkeypatch, capfd):
    """The same in this process, for what runs no script."""

    def run(*args):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as ended:
            main([*map(str, args)])
        printed = capfd.readouterr()
        return subprocess.CompletedProcess(args, ended.value.code, printed.out, printed.err)

    return run


@pytest.fixture
def script(tmp_path):
    def write(text, name="train.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.mark.slow
def test_a_healthy_training_from_start_to_report(script, tmp_path):
    done = unstuck("run", "--json", "r.json", "--html", "r.html", script(TRAINING), folder=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("loss 0x")
    assert "HEALTHY" in done.stderr
    verdict = json.loads((tmp_path / "r.json").read_text())
    assert (verdict["schema"], verdict["verdict"], verdict["run"]["steps"]) == (1, "healthy", 120)
    assert verdict["run"]["score"]["name"] == "accuracy"
    record = Record.read(tmp_path / verdict["run"]["record"])
    assert (record.steps, record.meta["progress"]["measuring"]["what"]) == (120, "experiments")
    assert "<html" in (tmp_path / "r.html").read_text()
    listed = unstuck("runs", folder=tmp_path)
    assert "-train " in listed.stdout


@pytest.mark.slow
def test_curvature_of_a_script_from_start_to_report(script, tmp_path):
    done = unstuck(
        "curvature", "--budget", "2m", "--json", "c.json", "--html", "c.html", script(TRAINING), folder=tmp_path
    )
    plain = subprocess.run([sys.executable, "train.py"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (0, plain.stdout)
    told = json.loads((tmp_path / "c.json").read_text())
    assert told["kind"].upper() in done.stderr
    assert "that the curvature bears (Adam)" in " ".join(done.stderr.split())
    assert {c["step"] for c in told["course"]} >= {0, 120}
    assert [layer["layer"] for layer in told["layers"]] == ["net.0", "net.2"]
    assert told["density"]["exact"]
    assert told["surface"]["path"]["steps"][0] == 0 and told["surface"]["path"]["steps"][-1] == 120
    assert told["notes"] == []
    written = (tmp_path / "c.html").read_text()
    assert 'id="curvature"' in written and 'id="surface"' in written
    unstuck("curvature", "--no-surface", "--no-density", "--quiet", "--json", "d.json", "train.py", folder=tmp_path)
    without = json.loads((tmp_path / "d.json").read_text())
    assert without["point"] and without["surface"] is None and without["density"] is None


@pytest.mark.slow
def test_curvature_along_a_run(script, tmp_path):
    done = unstuck("run", "--curvature", "--probe-budget", "0", "--json", "r.json", script(TRAINING), folder=tmp_path)
    assert done.returncode == 0
    assert "that the curvature bears (Adam)" in " ".join(done.stderr.split())
    record = Record.read(tmp_path / json.loads((tmp_path / "r.json").read_text())["run"]["record"])
    sharp = record.series("sharpness")
    assert 4 <= len(sharp) <= 10 and sharp.steps[0] == 0 and sharp.steps[-1] == 120
    assert not record.happened("probe") and record.meta["curvature_seconds"] > 0
    assert record.meta["progress"]["measuring"]["what"] == "curvature"
    assert not record.happened("watcher-error")


@pytest.mark.slow
def test_curvature_of_what_failed_or_never_trained(script, tmp_path):
    failed = unstuck("curvature", script(TRAINING + "\nraise SystemExit(3)\n"), folder=tmp_path)
    assert failed.returncode == 3
    nothing = unstuck("curvature", script("print(1)", "one.py"), folder=tmp_path)
    assert (nothing.returncode, nothing.stdout) == (0, "1\n")
    assert "UNKNOWN" in nothing.stderr


@pytest.mark.slow
def test_fail_on_and_quiet(script, tmp_path):
    done = unstuck("run", "--quiet", "--fail-on", "warning", script(BROADCAST), folder=tmp_path)
    assert done.returncode == 3
    assert "unstuck" not in done.stderr


@pytest.mark.slow
def test_a_module_with_its_own_options(script, tmp_path):
    script("import sys; print(sys.argv[1:], __name__)", "program.py")
    done = unstuck("run", "-q", "-m", "program", "--json", "x", "-m", folder=tmp_path)
    assert done.stdout.strip() == "['--json', 'x', '-m'] __main__"


@pytest.mark.slow
def test_what_was_seen_survives_a_kill(script, tmp_path):
    text = TRAINING.replace("    optimizer.step()", "    optimizer.step()\n    import time; time.sleep(0.02)")
    text = text.replace("print(", "import os, signal; os.kill(os.getpid(), signal.SIGKILL); print(")
    done = unstuck("run", "--json", "r.json", script(text), folder=tmp_path)
    assert done.returncode == -signal.SIGKILL
    assert json.loads((tmp_path / "r.json").read_text())["run"]["steps"] > 60


@pytest.mark.slow
def test_exit_codes_and_tracebacks_are_the_scripts_own(script, tmp_path):
    path = script(TRAINING + "\nraise ValueError('mine')\n")
    plain = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, cwd=tmp_path, check=False)
    done = unstuck("run", "--quiet", path, folder=tmp_path)
    assert done.returncode == plain.returncode == 1
    assert done.stderr == plain.stderr
    assert done.stdout == plain.stdout


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["run", "nowhere.py"], "there is no file 'nowhere.py'"),
        (["run", "."], "is a folder without a __main__.py"),
        (["run"], "which script? usage: unstuck run [OPTIONS] SCRIPT [ARGS...], or unstuck run -m MODULE [ARGS...]"),
        (["cure"], "which script? usage: unstuck cure [OPTIONS] SCRIPT [ARGS...]\n"),
        (["search"], "which script? usage: unstuck search [OPTIONS] SCRIPT [ARGS...]\n"),
        (["curvature"], "usage: unstuck curvature [OPTIONS] SCRIPT"),
        (["curvature", "nowhere.py"], "there is no file 'nowhere.py'"),
        (["curvature", "--budget", "soon", "train.py"], "--budget is 'soon'"),
        (["curvature", "--json", "no/such/c.json", "train.py"], "there is no folder"),
        (["run", "--curvature-budget", "much", "train.py"], "--curvature-budget is 'much'"),
        (["run", "--budget", "much", "train.py"], "--budget is 'much'"),
        (["run", "--fail-on", "tears", "train.py"], "must be one of error, warning, note"),
        (["run", "--json", "no/such/r.json", "train.py"], "there is no folder"),
        (["run", "--format", "srif", "train.py"], "--format is 'srif'; did you mean 'sarif'?"),
        (["run", "--output", "no/such/r.md", "train.py"], "there is no folder"),
        (["diagnose", "--format", "xml", "."], "--format is 'xml'; there are text, json, markdown, sarif"),
        (["run", "--html", ".", "train.py"], "is a folder: name a file"),
        (["run", "--runs", "train.py", "train.py"], "train.py"),
        (["run", "--set", "ded-units.fraction=1", "train.py"], "dead-units"),
        (
            ["cure", "--executor", "cloud", "train.py"],
            "--executor is 'cloud', but must be one of processes, ray, inline",
        ),
        (["cure", "--address", "auto", "train.py"], "give --executor ray as well"),
        (["cure", "--executor", "inline", "--workers", "2", "train.py"], "makes one run at a time"),
        (["diagnose"], "which record?"),
        (["diagnose", "nowhere"], "there is no record 'nowhere'"),
        (["diagnose", "train.py"], "is a script, not a record: `unstuck run train.py`"),
        (["diagnose", "."], "there is no record in the folder '.'"),
        (["diagnose", "--fail-on", "tears", "."], "must be one of error, warning, note"),
        (["diagnose", "--json", ".", "."], "is a folder: name a file"),
        (["diagnose", "--set", "dead-units.faction=1", "."], "did you mean 'fraction'?"),
        (["schema", "cures"], "the schema is 'cures'; did you mean 'cure'?"),
        (["explain"], "explain what? name a cause or a rule"),
        (["explain", "ded-units"], "no cause or rule 'ded-units'; did you mean 'dead-units'?"),
    ],
)
def test_misuse_is_one_clear_line_and_exit_code_two(script, unstuck_here, args, says):
    script("print('must not run')")
    done = unstuck_here(*args)
    assert done.returncode == 2
    assert done.stdout == ""
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_unknown_options_are_refused_before_the_script_and_passed_on_behind_it(script, tmp_path):
    path = script("import sys; print(sys.argv[1:])")
    assert unstuck("run", "--nonsense", path, folder=tmp_path).returncode == 2
    assert unstuck("run", "-q", path, "--nonsense", "--json", folder=tmp_path).stdout == "['--nonsense', '--json']\n"


@pytest.mark.slow
def test_a_script_without_torch_is_unknown_and_says_why(script, tmp_path):
    done = unstuck("run", "--json", "r.json", script("print('hello')"), folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "hello\n")
    verdict = json.loads((tmp_path / "r.json").read_text())
    assert verdict["verdict"] == "unknown"
    assert "never imported torch" in verdict["why_unknown"]


@pytest.mark.slow
def test_a_syntax_error_is_pythons_to_tell(script, tmp_path):
    done = unstuck("run", script("def broken(:\n"), folder=tmp_path)
    assert done.returncode == 1
    assert "SyntaxError" in done.stderr
    assert "unstuck/" not in done.stderr.split("SyntaxError")[0]


@pytest.mark.slow
def test_torch_without_training_is_unknown_and_says_why(script, tmp_path):
    done = unstuck(
        "run", "--json", "r.json", script("import torch; print(torch.ones(2).sum().item())"), folder=tmp_path
    )
    assert done.stdout == "2.0\n"
    verdict = json.loads((tmp_path / "r.json").read_text())
    assert verdict["verdict"] == "unknown"
    assert verdict["why_unknown"]


@pytest.mark.slow
def test_other_processes_that_train_are_watched_and_workers_are_silent(script, tmp_path):
    text = TRAINING.replace("import sys, torch", "import sys, torch, subprocess")
    child = script(text, "child.py")
    parent = script(f"import subprocess, sys, torch\nsubprocess.run([sys.executable, {str(child)!r}], check=True)\n")
    done = unstuck("run", "--json", "r.json", parent, folder=tmp_path)
    assert done.returncode == 0
    assert json.loads((tmp_path / "r.json").read_text())["run"]["steps"] == 120


def test_version(tmp_path):
    assert unstuck("--version", folder=tmp_path).stdout.startswith("unstuck 0.")


@pytest.mark.slow
def test_the_default_folder_falls_back_when_it_cannot_be_written(script, tmp_path):
    path = script(TRAINING)
    (tmp_path / ".unstuck").write_text("a file where the folder should be")
    done = unstuck("run", path, folder=tmp_path, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert done.returncode == 0
    assert "the record goes to" in done.stderr
    assert list(Path(tmp_path).glob("unstuck-*/*/record.sqlite"))


# ---------------------------------------------------------------------- records that are there


@pytest.fixture
def saved(tmp_path):
    """A run whose loss broadcasts, in the default folder of runs."""
    folder = tmp_path / ".unstuck" / "20250304-102231-train"
    folder.mkdir(parents=True)
    writer = Writer(folder / "record.sqlite", meta={"script": "train.py"})
    for step in range(60):
        writer.row(step, (("loss", ""), ("grad_norm", "")), (1.0, 0.1))
    call = LossCall("mse_loss", "train.py:9", "head", output_shape=(32, 1), target_shape=(32,), target_kind="real")
    task = Task("regression", 0, "r2", 1.0, 0.0)
    writer.program(Program(layers=(Layer("head", "linear"),), losses=(call,), task=task).to_json())
    writer.close(status="finished", steps=60, seconds=1.5)
    return folder


@pytest.mark.slow
def test_what_reads_records_leaves_torch_alone(saved, tmp_path):
    code = """
import sys
from unstuck.cli import main
for command in sys.argv[1:]:
    try:
        main(command.split())
    except SystemExit as end:
        assert not end.code, command
    assert "torch" not in sys.modules, command
"""
    name = ".unstuck/20250304-102231-train"
    commands = [f"diagnose {name} --html r.html", "explain dead-units", "rules", "rules --json", "runs", "--version"]
    subprocess.run([sys.executable, "-c", code, *commands], cwd=tmp_path, capture_output=True, timeout=60, check=True)
    assert (tmp_path / "r.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["{folder}", "{folder}/record.sqlite", "20250304-102231-train"])
def test_a_saved_run_is_judged_again(saved, tmp_path, name):
    done = unstuck("diagnose", name.format(folder=saved.relative_to(tmp_path)), "--json", "r.json", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("✗ SICK")
    verdict = json.loads((tmp_path / "r.json").read_text())
    assert (verdict["schema"], verdict["verdict"], verdict["findings"][0]["cause"]) == (1, "sick", "loss-broadcast")
    assert (verdict["run"]["steps"], verdict["run"]["seconds"]) == (60, 1.5)


def test_it_is_judged_as_a_record_is_in_the_library(saved, tmp_path, unstuck_here):
    from unstuck.doctor import diagnose
    from unstuck.report.json import to_json

    unstuck_here("diagnose", "--quiet", saved, "--json", "r.json")
    expected = to_json(diagnose(Record.read(saved)))
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads(json.dumps(expected))


def test_judging_again_leaves_the_record_as_it_is(saved, unstuck_here):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    unstuck_here("diagnose", saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_judging_again_with_other_thresholds(saved, tmp_path, unstuck_here):
    done = unstuck_here("diagnose", saved, "--set", "loss-broadcast.growth=1000", "--json", "r.json")
    causes = [finding["cause"] for finding in json.loads((tmp_path / "r.json").read_text())["findings"]]
    assert done.returncode == 0
    assert "loss-broadcast" not in causes


@pytest.mark.slow
def test_judging_again_fails_on_a_severity_and_prints_nothing_when_quiet(saved, tmp_path):
    done = unstuck("diagnose", "-q", "--fail-on", "error", "--html", "r.html", saved, folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    assert "<html" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    ("form", "begins"),
    [("text", "✗ SICK"), ("json", '{\n  "schema": 1,'), ("markdown", "## ✗ SICK"), ("sarif", '{\n  "$schema"')],
)
def test_a_verdict_is_told_in_any_format_on_stdout_or_in_a_file(saved, tmp_path, unstuck_here, form, begins):
    shown = unstuck_here("diagnose", saved, "--format", form)
    assert shown.stdout.startswith(begins) and "loss-broadcast" in shown.stdout
    assert not any(line != line.rstrip() for line in shown.stdout.splitlines())
    written = unstuck_here("diagnose", saved, "--format", form, "--output", "r.out")
    assert (written.returncode, written.stdout, written.stderr) == (0, "", "")
    text = (tmp_path / "r.out").read_text("utf-8")
    assert text.startswith(begins) and not any(line != line.rstrip() for line in text.splitlines())
    assert unstuck_here("diagnose", "--quiet", saved, "--format", form).stdout == ""


def test_the_file_of_json_is_the_same_as_what_is_printed(saved, tmp_path, unstuck_here):
    shown = unstuck_here("diagnose", saved, "--format", "json", "--json", "r.json").stdout
    assert shown == (tmp_path / "r.json").read_text("utf-8")


@pytest.mark.slow
def test_a_run_writes_its_verdict_in_a_format(script, tmp_path):
    done = unstuck("run", "--format=markdown", "--output", "r.md", script(BROADCAST), folder=tmp_path)
    assert done.returncode == 0 and "SICK" not in done.stderr
    assert (tmp_path / "r.md").read_text().startswith("## ✗ SICK")


def test_a_schema_is_printed(unstuck_here):
    assert "findings" in json.loads(unstuck_here("schema").stdout)["properties"]
    assert "prescription" in json.loads(unstuck_here("schema", "cure").stdout)["properties"]


def test_a_folder_of_runs_is_no_record_and_names_the_newest(saved, unstuck_here):
    shutil.copytree(saved, saved.with_name("20240101-000000-old"))
    done = unstuck_here("diagnose", ".unstuck")
    assert done.returncode == 2
    assert "is a folder of runs: name one of them, such as '.unstuck/20250304-102231-train'" in done.stderr


def test_a_file_that_is_no_record_is_refused(saved, tmp_path, unstuck_here):
    (tmp_path / "notes.txt").write_text("not a record")
    done = unstuck_here("diagnose", "notes.txt")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_judging_again_takes_little_time(saved, tmp_path):
    # It takes 0.4 s alone on a machine. CPU time, since others use the machine too, and the best of three.
    code = "import subprocess, resource, sys; subprocess.run(sys.argv[1:], check=True); "
    code += "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(used.ru_utime + used.ru_stime)"
    command = [sys.executable, "-c", code, sys.executable, "-m", "unstuck", "diagnose", "-q", str(saved)]
    times = [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(3)]
    assert min(times) < 1


# ---------------------------------------------------------------------- what is known


def test_explain_is_a_page_on_stdout(unstuck_here):
    done = unstuck_here("explain", "dead-units")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("dead-units  ReLU-like units are zero on every sample")


def test_rules_are_listed_for_people_and_for_programs(unstuck_here):
    shown = unstuck_here("rules").stdout
    told = json.loads(unstuck_here("rules", "--json").stdout)
    assert {"dead-units", "overfitting"} <= {rule["rule"] for rule in told["rules"]}
    assert all(rule["rule"] in shown for rule in told["rules"])


def test_inline_makes_one_run_at_a_time(tmp_path):
    from unstuck.cli._cure import executor
    from unstuck.trials.executor import Log

    assert executor("inline", Log(tmp_path), address=None, workers=None).workers == 1
    assert executor("processes", Log(tmp_path), address=None, workers=3).workers == 3
