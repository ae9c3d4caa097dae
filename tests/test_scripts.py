"""Every script runs in its shortest form; those with tests of their own are listed with them."""

import re

import pytest
from conftest import ROOT

ELSEWHERE = {
    "check": "test_checking",
    "compare": "test_sweeps",
    "dashboard": "test_dashboard",
    "evaluate": "test_evaluate",
    "export": "test_export",
    "inpaint": "test_inpainting",
    "interpolate": "test_interpolate",
    "likelihood": "test_likelihood",
    "report": "test_report",
    "sample": "test_cli",
}
SHORTEST = {
    "backbones": (
        [
            *("spiral", "data.size=160", "data.batch_size=16", "--rounds", "1", "--steps", "2", "--only-print"),
            *("--budget", "0.01", "--n", "100", "--net", "mlp"),
        ],
        r"(?s)wasserstein over floor.*`mlp` \| 33.794 \| 0.0668 \|",
    ),
    "benchmark": (
        ["mnist", "model.channels=[8,16]", "--rounds", "1", "--steps", "1", "--batch", "4"],
        r"(?s)mnist +4 framework .*bare loop .* of its speed.*sampling loop .* % of a matrix product.* of its speed",
    ),
    "benchmark_others": (
        [
            *("spiral", "data.size=160", "data.batch_size=16", "--rounds", "1", "--steps", "1"),
            *("--quality", "0.01", "--n", "100", "--calls", "2"),
        ],
        r"(?s)litdiffusion .*points per CPU second.*litdiffusion +wasserstein_over_floor",
    ),
    "folder": (
        ["--count", "30", "--size", "4", "--batch", "8"],
        r"(?s)writing the file: .*second epoch .*memory at the end",
    ),
    "memory": (
        ["--net", "unet", "--batch", "2", "--shape", "1", "8", "8", "--only-print"],
        r"\| `unet` \| 2\.\d \| \d+ / \d+ \|",
    ),
    "torture": (["--draws", "1", "--seed", "3"], r"1 draws: 1 equal, 0 explained, 0 failed"),
    "torture_configs": (["--cases", "2"], r"2 cases: .*; 0 failures"),
    "torture_sweep": (
        ["--kills", "0", "--steps", "4"],
        r"12 rows, 8 complete .*4 failed and kept",
    ),
}


def test_every_script_is_run_by_a_test():
    assert {path.stem for path in (ROOT / "scripts").glob("*.py")} == {*ELSEWHERE, *SHORTEST}
    for name, test in ELSEWHERE.items():
        assert f"scripts/{name}.py" in (ROOT / "tests" / f"{test}.py").read_text()


@pytest.mark.parametrize("name", [pytest.param(k, marks=[pytest.mark.slow] * (k == "torture_sweep")) for k in SHORTEST])
def test_a_script_runs_in_its_shortest_form(name, command):
    arguments, pattern = SHORTEST[name]
    status, out, err = command(f"scripts/{name}.py", *arguments)
    assert status == 0, err
    assert re.search(pattern, out), out
