"""The soak: the real program under every fault that we know, for as long as one likes."""
