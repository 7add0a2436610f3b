"""The report of a run: one HTML file that shows what was asked, what was found, and what to doubt of it."""
