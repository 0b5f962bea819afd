"""Rules of board games as functions on arrays, and what can be computed from the rules alone."""
