"""Files that could stand in `transformer/tasks/`: what a task of one's own takes."""
