"""The bench of large files, small: every shape and every change of a tree is gone through.

Nothing is asserted of time.
"""

from __future__ import annotations

import pytest

from bench.files.__main__ import of_shape, of_tree
from bench.files.shapes import SHAPES, Shape

pytestmark = pytest.mark.nightly

_BYTES = 100_000


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.key)
def test_a_shape_has_nearly_the_size_asked_for(shape: Shape) -> None:
    made = shape.make(_BYTES, 0)
    assert _BYTES * 0.85 < len(made) <= _BYTES
    assert made == shape.make(_BYTES, 0), "measured twice, it is the same"


def test_a_shape_is_measured_as_it_arrives_is_replaced_and_goes() -> None:
    [vms] = [shape for shape in SHAPES if shape.key == "vms-list"]
    rows = list(of_shape(vms, _BYTES))
    assert [row[0] for row in rows] == [
        f"vms-list {what}" for what in ("arrives", "is replaced", "goes")
    ]


def test_a_tree_is_measured_step_by_step() -> None:
    assert len(list(of_tree(30))) == 9
