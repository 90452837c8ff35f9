"""Large files in every shape, and many files at once: how long they keep the event loop."""
