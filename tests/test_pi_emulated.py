"""The comparison with an emulated Pi; this machine's own Python stands in for the emulated one."""

import sys
from pathlib import Path

import pytest

from eisv_lumen.errors import VerificationError
from recipes import pi_emulated
from tests.student_folders import student_folder, write_student

ROOT = Path(pi_emulated.__file__).parents[1]


def test_the_same_processor_says_the_same(tmp_path):
    report = pi_emulated.compare([sys.executable], [ROOT], student_folder(), tmp_path)
    assert report["n"] == pi_emulated.WINDOWS and report["selftest"]["windows"] > 0
    for precision in ("fp32", "int8"):
        assert report[precision]["same_expression"] == 1.0
        assert report[precision]["largest_difference"] == 0.0
    pi_emulated.judge(report)


def test_another_voice_is_refused(tmp_path):
    write_student(tmp_path / "other", seed=7)
    script = tmp_path / "elsewhere.py"
    script.write_text(
        "import runpy, sys\n"
        "sys.argv = sys.argv[1:]\n"
        "if sys.argv[0].endswith('pi_probe.py'):\n"
        f"    sys.argv[1] = {str(tmp_path / 'other')!r}\n"
        "    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "else:\n"
        "    sys.argv = sys.argv[1:]\n"
        "    runpy.run_module(sys.argv[0], run_name='__main__')\n"
    )
    report = pi_emulated.compare([sys.executable, str(script)], [ROOT], student_folder(), tmp_path)
    assert report["fp32"]["same_expression"] < 1 and report["fp32"]["largest_difference"] > 0.01
    with pytest.raises(VerificationError, match="cortex-a53"):
        pi_emulated.judge(report)


def test_nan_is_no_agreement():
    fine = {
        "same_expression": 1.0,
        "largest_difference": 0.0,
        "needed": {"same_expression": 1.0, "largest_difference": 1e-4},
    }
    with pytest.raises(VerificationError):
        pi_emulated.judge({"fp32": fine, "int8": {**fine, "largest_difference": float("nan")}})
