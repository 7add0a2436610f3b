"""The run directory: manifest, database, final states and checkpoints, written and read."""
