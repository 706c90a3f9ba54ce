"""Weights that were trained: those that ship (they lie in this folder), a card for each, and how others are found."""
