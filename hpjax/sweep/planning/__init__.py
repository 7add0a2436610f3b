"""Planning: which trials share a program, how many lanes a device computes at once, and what it takes."""
