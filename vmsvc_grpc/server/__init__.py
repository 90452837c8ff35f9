"""Answers over gRPC from the cache: our own API, health, reflection.

Handlers know requests and the cache, and no transport; transports know bytes and
streams, and no handler.
"""
