"""TLS for listeners: which files may be used, and how new ones are taken while we serve."""
