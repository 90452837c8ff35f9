"""`vmsvc feed template`: keep a file right that a template makes, and tell a command of it.

`view` says what a template sees. `worker` renders, in a process of its own, within bounds.
`template` has it rendered, writes the file, and runs the command.
"""
