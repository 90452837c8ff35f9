"""Scenario q: how long the event loop stands still, and what memory is left, by cause."""
