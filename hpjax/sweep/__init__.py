"""A sweep: what the user asked, its plan, its run."""
