"""Trained weights: those that ship (in this folder), a card for each, and the search for others."""
