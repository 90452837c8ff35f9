"""`vmsvc feed nginx`: keep the upstreams of an nginx right, by files that it includes.

`upstream` says what a file should hold, and knows no file. `files` puts them in place, and knows
which of them nginx has taken. `nginx` tests, reloads, and goes back.
"""
