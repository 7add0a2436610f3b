"""Results: what a run found, as arrays, tables, pictures and files."""
