"""Datasets in the layouts that the field uses, and training clips made from them."""
