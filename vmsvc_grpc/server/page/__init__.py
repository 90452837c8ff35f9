"""The page: what a person on this machine sees of the server in a browser, live and read only.

It shows what the API says, by the API's own functions, and refuses to know how they come to it.
"""
