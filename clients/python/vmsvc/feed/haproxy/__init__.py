"""`vmsvc feed haproxy`: servers of HAProxy's backends, by its Runtime API, without a reload.

What HAProxy holds is read back (`held`) and compared with what is wanted (`wanted`): the difference
is a list of `commands`, planned for servers that are added and deleted (`dynamic`) or for slots
that are filled (`slots`). All that is pure. `runtime` asks, `output` brings them together.
"""
