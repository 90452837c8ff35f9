"""The services that gRPC's own tools ask for: health, reflection and channelz."""
