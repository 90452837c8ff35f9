"""When slices of ours may go: each service's own time, and everybody's patience."""

from __future__ import annotations

from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.reconciler.handover import HandOver

WEB, API = Key("shop", "web"), Key("shop", "api")


def test_slices_go_once_their_endpoints_are_mirrored() -> None:
    hand_over = HandOver(patience_s=10.0)
    assert not hand_over.asked(WEB, 0.0, mirrored=False)
    assert not hand_over.over(WEB)
    assert hand_over.asked(WEB, 1.0, mirrored=True)
    assert hand_over.over(WEB)
    assert not hand_over.over(API)


def test_where_nobody_mirrors_they_go_after_a_while() -> None:
    hand_over = HandOver(patience_s=10.0)
    assert not hand_over.asked(WEB, 5.0, mirrored=False)
    assert not hand_over.asked(WEB, 14.9, mirrored=False)
    assert hand_over.asked(WEB, 15.0, mirrored=False)


def test_they_are_waited_for_while_others_are_handed_over() -> None:
    hand_over = HandOver(patience_s=10.0)
    assert not hand_over.asked(WEB, 0.0, mirrored=False)
    assert hand_over.asked(API, 9.0, mirrored=True)
    assert not hand_over.asked(WEB, 18.9, mirrored=False)
    assert hand_over.asked(WEB, 19.0, mirrored=False)


def test_what_is_forgotten_begins_anew() -> None:
    hand_over = HandOver(patience_s=10.0)
    assert hand_over.asked(WEB, 0.0, mirrored=True)
    hand_over.forget(WEB)
    assert not hand_over.over(WEB)
    assert not hand_over.asked(WEB, 100.0, mirrored=False)
    hand_over.forget(WEB)
    assert not hand_over.asked(WEB, 200.0, mirrored=False)
