"""Jobs that leave a folder of results: a run, many runs, and what is done with finished ones."""
