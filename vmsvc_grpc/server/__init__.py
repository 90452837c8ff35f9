"""Answers over gRPC from the cache: our own API, health, reflection.

Handlers know requests and the cache, but no transport. Transports know bytes and streams, but no
handler.
"""
