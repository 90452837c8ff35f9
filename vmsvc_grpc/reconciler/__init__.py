"""Keeps Services and Endpoints as the cache says they should be.

Desired, observed, plan, apply: only `apply` writes, and planning again after it yields
nothing.
"""
