"""The numbers that Python passes for quantization kinds are the core's."""

from pccl_py import _core
from pccl_py.quantization import KINDS, NO_QUANTIZATION


def test_kinds_are_those_of_the_core() -> None:
    assert _core.QUANTIZATIONS == {"none": NO_QUANTIZATION[0]} | KINDS
