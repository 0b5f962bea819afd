"""Files that could stand in `transformer/models/`: what an architecture of one's own takes."""
