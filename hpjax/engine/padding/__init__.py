"""Padding: one program for groups whose programs differ in the sizes of arrays, or in constants, only."""
