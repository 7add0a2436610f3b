"""The nouns and the tools that everything else stands on: spaces, hyperparameters, programs, keys, errors."""
