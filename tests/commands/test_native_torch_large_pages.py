"""PyTorch uses large pages if ``train`` and ``evaluate`` request them."""

import os
import subprocess
import sys

import pytest

from densenet_multi import _large_pages

SMALL = 4096  # bytes
CODE = """
import resource, sys
from densenet_multi import _large_pages
if sys.argv[1] == "large":
    assert _large_pages.request_large_pages()
import torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(2**24)  # 64 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize("size", ["large", "small"])
def test_pytorch_requests_a_large_array_in_few_pages(size):
    kept = {name: value for name, value in os.environ.items() if name != _large_pages.VARIABLE}
    if not _large_pages.SWITCH.exists() or "[madvise]" not in _large_pages.SWITCH.read_text():
        pytest.skip("this system offers no large pages on request")
    command = [sys.executable, "-c", CODE, size]
    done = subprocess.run(command, env=kept, capture_output=True, text=True, check=True)
    pages = 2**26 // SMALL
    assert int(done.stdout) < pages / 4 if size == "large" else int(done.stdout) >= pages
