"""`vmsvc feed`: keep a load balancer, a file or a command right from one watch.

`held` decides which states are fed, `keeper` feeds them, an `output` makes them so. Outputs do not
know the server, nor each other.
"""
