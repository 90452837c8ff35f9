"""The connection to an API server: requests and watches as bytes, as whom, and where objects are.

Knows what kinds are called and where they stand, and not what objects mean.
"""
