"""The HTTP port: probes and metrics, in little room."""
