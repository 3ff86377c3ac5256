"""The graph of a request, cut from the prepared one."""
