import subprocess
import sys

import pytest

_FAULTS = """
import resource, sys
from mixup.models.memory import give_back_freed_memory, keep_freed_memory

if sys.argv[1] != "not kept":
    keep_freed_memory()
def use():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b'x' * 64_000_000  # 15,625 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
use()
if sys.argv[1] == "given back":
    give_back_freed_memory()
print(use())
"""


def second_use(mode: str) -> int:
    command = [sys.executable, "-c", _FAULTS, mode]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the setting is glibc's")
def test_freed_memory_is_used_again_without_page_faults():
    assert second_use("kept") < 100 < 10_000 < second_use("not kept")


@pytest.mark.skipif(sys.platform != "linux", reason="the call is glibc's")
def test_what_was_kept_can_be_given_back():
    assert second_use("given back") > 10_000
