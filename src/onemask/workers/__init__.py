"""Jobs distributed among processes of this machine (`pool`) or of a Ray cluster (`cluster`)."""
