"""Each example of a callback runs as its users would run it, and finds what it says is there."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "integrations"
FOUND = {
    "accelerate_tracker": (("accelerate",), "found: output-loss-mismatch"),
    "keras_callback": (("keras",), "found: vanishing-gradient"),
    "lightning_callback": (("lightning",), "found: vanishing-gradient"),
    "ray_train_loop": (("ray", "pyarrow"), "found: parameters-not-trained"),
    "skorch_callback": (("skorch",), "found: learning-rate-too-high"),
    "tensorboard_log": (("tensorboard",), "found: learning-rate-too-high"),
    "transformers_callback": (("transformers", "accelerate"), "found: learning-rate-too-high after"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUND)
def test_it_finds_what_it_says(name, tmp_path):
    packages, last = FOUND[name]
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    script = EXAMPLES / f"{name}.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TMPDIR": str(tmp_path)}
    environment |= {"HOME": str(tmp_path), "RAY_TMPDIR": tempfile.gettempdir()}  # the path of a socket must be short
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.splitlines()[-1].startswith(last), done.stdout
    assert "record" in done.stdout
