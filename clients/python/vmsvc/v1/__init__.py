"""Messages and stubs of vmsvc.v1, made from proto/ by `make gen`."""
