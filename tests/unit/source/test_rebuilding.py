"""How long objects stay while a directory, or the tree, is being built anew."""

from __future__ import annotations

import pytest

from vmsvc_grpc.source.rebuilding import Rebuilding

SETTLE_S, REST_S, LONGEST_S = 1.0, 10.0, 100.0
LONG_AGO = -1000.0


@pytest.fixture
def rebuilding() -> Rebuilding:
    return Rebuilding(settle_s=SETTLE_S, rest_s=REST_S, longest_s=LONGEST_S)


def test_while_paths_come_and_go_anywhere_nothing_goes_for_a_while(rebuilding: Rebuilding) -> None:
    rebuilding.changed("d/a.yaml", 500.0)
    assert rebuilding.kept_until("e/b.yaml", missing_since=500.0) == 500.0 + SETTLE_S
    assert rebuilding.kept_until("e/b.yaml", missing_since=495.0) == 500.0 + SETTLE_S
    assert rebuilding.kept_until("e/b.yaml", missing_since=400.0) == 400.0 + REST_S


def test_what_was_beneath_a_replaced_directory_stays_until_it_rests(rebuilding: Rebuilding) -> None:
    rebuilding.replaced(["d"], 500.0)
    for path in ("d/a.yaml", "d/deep/a.yaml"):
        assert rebuilding.kept_until(path, LONG_AGO) == 500.0 + REST_S
    rebuilding.changed("d/deep/b.yaml", 505.0)
    rebuilding.changed("e/b.yaml", 507.0)
    assert rebuilding.kept_until("d/a.yaml", LONG_AGO) == 505.0 + REST_S
    assert rebuilding.kept_until("e/a.yaml", LONG_AGO) < 500.0


def test_one_that_never_rests_is_not_waited_for(rebuilding: Rebuilding) -> None:
    rebuilding.replaced(["d"], 500.0)
    for second in range(500, 700, 5):
        rebuilding.changed("d/a.yaml", float(second))
    assert rebuilding.kept_until("d/b.yaml", LONG_AGO) == 500.0 + LONGEST_S


def test_one_that_is_replaced_again_and_again_counts_from_the_first_time(
    rebuilding: Rebuilding,
) -> None:
    for second in range(500, 600, 5):
        rebuilding.replaced(["d"], float(second))
    assert rebuilding.kept_until("d/b.yaml", LONG_AGO) == 500.0 + LONGEST_S
    rebuilding.replaced(["d"], 800.0)
    assert rebuilding.kept_until("d/b.yaml", LONG_AGO) == 800.0 + REST_S


def test_what_rests_is_forgotten_and_counts_no_more(rebuilding: Rebuilding) -> None:
    rebuilding.replaced(["", "d"], 500.0)
    rebuilding.changed("d/a.yaml", 600.0)
    assert rebuilding.kept_until("d/a.yaml", LONG_AGO) == 500.0 + REST_S, "it had rested"
    rebuilding.forget(600.0)
    assert rebuilding.kept_until("d/a.yaml", LONG_AGO) < 500.0
