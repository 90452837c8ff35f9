"""The one in-memory state: objects in, endpoint sets out.

Owned by one event loop; changes only inside `Cache.apply`, which never waits. Knows
no I/O, no transport and no encoding.
"""
