"""Front ends: the command line, scikit-learn, Optuna, Slurm, and tools for tests."""
