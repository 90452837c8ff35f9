"""What gRPC's own tools ask of any server: health and reflection."""
