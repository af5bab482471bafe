"""Whether this machine can run a student at all, said before anything is downloaded or opened."""

import re
import struct
from importlib.metadata import PackageNotFoundError, version

from eisv_lumen.errors import ResourceError

OLDEST_ONNXRUNTIME = (1, 22)
"""1.21.0 dies with an illegal instruction on a Raspberry Pi 4, and takes the process with it."""


def check_word_size() -> None:
    """Say early that onnxruntime exists for 64-bit systems only.

    Raises:
        ResourceError: This Python is a 32-bit one.
    """
    if struct.calcsize("P") < 8:
        raise ResourceError(
            found="a 32-bit system",
            expected="a 64-bit one, which onnxruntime needs",
            next="install the 64-bit Raspberry Pi OS",
        )


def check_onnxruntime() -> None:
    """Look at the installed onnxruntime without importing it.

    Raises:
        ResourceError: It is missing, or too old.
    """
    try:
        found = version("onnxruntime")
    except PackageNotFoundError:
        found = "none"
    numbers = re.match(r"(\d+)\.(\d+)", found)
    if numbers is None or tuple(map(int, numbers.groups())) < OLDEST_ONNXRUNTIME:
        raise ResourceError(
            found=f"onnxruntime {found}",
            expected=f"onnxruntime {'.'.join(map(str, OLDEST_ONNXRUNTIME))} or newer",
            next='pip install --upgrade "onnxruntime>=1.22"',
        )
