"""What is kept of requests that have not come whole."""

from __future__ import annotations

import pytest

from vmsvc_grpc.server.call import Code, RpcError
from vmsvc_grpc.server.kept import KeptBytes


def test_one_client_at_its_bound_leaves_the_others_theirs_and_gets_its_own_back() -> None:
    uploads = KeptBytes("upload_bytes_max", 400, "unfinished requests")
    uploads.keep("a", 100)
    with pytest.raises(RpcError, match=r"this client's address.*upload_bytes_max") as raised:
        uploads.keep("a", 1)
    assert raised.value.code is Code.RESOURCE_EXHAUSTED
    assert raised.value.limit == "upload_bytes_max"
    for client in "bcd":
        uploads.keep(client, 100)
    with pytest.raises(RpcError, match="all clients"):
        uploads.keep("e", 1)
    uploads.let_go("a", 100)
    uploads.keep("a", 100)
    for client in "abcd":
        uploads.let_go(client, 100)
    assert not uploads._in_all
    assert not uploads._of_client
