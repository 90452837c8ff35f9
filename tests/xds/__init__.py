"""Clients of other languages' xDS, which tests build, run and compare."""
