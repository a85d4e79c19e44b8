"""Every public function gives gloo's values, on the backend and as a function of pccl_py.distributed."""

from __future__ import annotations

from typing import Any

import pytest

from .gang import Gang

GLOO_LACKS = {"gather": "complex", "all_to_all_lists": ""}  # and by dtype; the two doors are compared there


def is_refused_with_reason(line: dict[str, Any]) -> bool:
    """Reductions that have no meaning in the dtype, which gloo refuses too."""
    return bool(line["gloo"]) and line["error"].startswith(("UsageError: ", "ValueError: "))


@pytest.mark.deadline(200)
def test_every_function_gives_the_values_of_gloo(gang: Gang) -> None:
    said = gang.play("plays_compare:compare", 4, limit_s=180)
    for lines in said:
        assert [line for line in lines if "differs" in line] == []
        assert [line for line in lines if "cannot" in line and not is_refused_with_reason(line)] == []
        for line in lines:
            if "gloo_cannot" in line:
                lacking = GLOO_LACKS.get(line["gloo_cannot"])
                assert lacking is not None and lacking in line["options"].get("dtype", ""), line
    assert [lines[-1]["cases"] for lines in said] == [n * said[3][-1]["cases"] for n in (4, 3, 2, 1)]
    assert said[3][-1]["cases"] > 300
