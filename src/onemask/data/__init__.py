"""Folders on disk: datasets in the layouts that the field uses."""
