"""`scripts/gpu` where there is no GPU, and its comparison on labels whose answer can be seen."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def test_without_a_gpu_it_says_so_and_makes_no_environment(tmp_path):
    (tmp_path / "nvidia-smi").write_text(
        "#!/bin/sh\nexit 9\n"
    )  # as where the driver does not answer
    (tmp_path / "nvidia-smi").chmod(0o755)
    search = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [ROOT / "scripts" / "gpu"],
        env={**os.environ, "PATH": search},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert done.stdout.startswith("There is no GPU on this machine")


def test_the_share_of_equal_pixels_is_told_for_each_setting(monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import gpu_check

    zeros = np.zeros((2, 2), np.uint8)
    one_off = np.array([[0, 0], [0, 1]], np.uint8)
    here = {"demo, whole, 00": zeros, "demo, whole, 01": zeros, "demo, window, 00": zeros}
    there = {"demo, whole, 00": zeros, "demo, whole, 01": one_off, "demo, window, 00": zeros}
    shares = gpu_check.compare(here, there)
    assert shares == {"demo, whole": [1.0, 0.75], "demo, window": [1.0]}
    assert not gpu_check.print_shares("GPU and CPU", shares)
    assert gpu_check.print_shares("GPU and CPU", gpu_check.compare(here, here))
    assert "0.87500 0.75000" in capsys.readouterr().out
    sys.modules.pop("gpu_check")
