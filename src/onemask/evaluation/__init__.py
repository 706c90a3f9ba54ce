"""Measures (numpy and OpenCV only), scores of folders, protocols of the benchmarks."""
