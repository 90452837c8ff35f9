"""The connection to an API server: requests and watches as bytes, as whom, and where objects are.

Knows the names and paths of kinds, but not what objects mean.
"""
