"""The resource and the record of its search: plain data, without torch, MPI or a cluster."""
