"""The HTTP port: probes and metrics, with bounded resources."""
