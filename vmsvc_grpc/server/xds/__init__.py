"""xDS v3: the same endpoints in Envoy's protocol, for Envoy and gRPC's own clients."""
