"""What methods are built of: each used by two methods or more, or large enough to be read alone."""
