"""How bytes meet streams. Handlers do not know which transport runs, nor that one does."""
