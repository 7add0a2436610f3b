"""Front ends: the command line, scikit-learn, Optuna, Slurm, and checks for samplers and schedulers of your own."""
