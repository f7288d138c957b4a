"""What the runtime's texts mean, and how large batches may be after memory ran out."""

from __future__ import annotations

import pytest

from app.serving.costs import CostModel
from app.serving.faults import Fault, fault_of
from app.serving.safety import GOOD_BATCHES, SafeSize


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Non-zero status code: Failed to allocate memory for requested buffer of size 123", Fault.MEMORY),
        ("CUDA failure 2: out of memory ; GPU=0", Fault.MEMORY),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED", Fault.MEMORY),
        ("Available memory of 100 is smaller than requested bytes of 200", Fault.MEMORY),
        ("CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED", Fault.MEMORY),
        ("CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED", Fault.STICKY),
        ("CUDA failure 999: unknown error", Fault.STICKY),
        ("CUDA failure 700: an illegal memory access was encountered", Fault.STICKY),
        ("CUDA failure 214: uncorrectable ECC error", Fault.STICKY),
        ("NVRM: Xid 79: GPU has fallen off the bus", Fault.STICKY),
        ("Exiting due to terminate flag being set to true.", Fault.ENDED),
        ("CUDA failure 222: the provided PTX was compiled with an unsupported toolchain", Fault.OTHER),
        ("Got invalid dimensions for input", Fault.OTHER),
    ],
)
def test_a_text_tells_what_can_be_done(text, fault):
    assert fault_of(RuntimeError(text)) is fault


def test_python_has_a_type_for_it():
    assert fault_of(MemoryError()) is Fault.MEMORY


def test_the_limit_rises_by_one_after_a_thousand_good_batches_up_to_what_was_measured():
    model = CostModel(0.01, 0.0, 8.0)
    safe, limits = SafeSize(model, cost=1.0), []
    safe.short(8)
    for _ in range(6 * GOOD_BATCHES):
        safe.good()
        limits.append(model.max_batch_cost)
    assert sorted(set(limits)) == [4, 5, 6, 7, 8]
    assert limits[GOOD_BATCHES - 2 : GOOD_BATCHES] == [4, 5]
