"""Running: trains every trial of a plan, records it, and goes on where a run was interrupted."""
