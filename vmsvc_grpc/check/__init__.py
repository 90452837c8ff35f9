"""`vmsvc-grpc check`: what is missing for `serve` to run here with these settings.

It asks the same questions that `serve` would meet later, changes nothing, and says of each flaw
what to do.
"""
