"""Parts that tasks share."""
