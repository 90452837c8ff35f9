"""`vmsvc.v1.EndpointService`: look-ups and watch streams, from the cache."""
