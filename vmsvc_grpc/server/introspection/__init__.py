"""What the server says of itself: its health, services, connections and version."""
