"""The engine: computes many lanes as one program, and decides nothing."""
