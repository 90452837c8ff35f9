"""The log: one stream, one event a line, as text or as JSON.

Each part logs by `logging`, as any library does, and says by `about` which object, and why.
"""
