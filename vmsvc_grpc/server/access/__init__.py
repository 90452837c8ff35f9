"""Who calls, what a call needs, and whether it is granted. Knows no transport and no cache."""
