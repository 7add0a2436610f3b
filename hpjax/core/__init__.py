"""What every other room builds on: spaces, hyperparameters, programs, objectives, random keys and errors."""
