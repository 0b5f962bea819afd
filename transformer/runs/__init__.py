"""What is done with a run folder: opened, imported, exported."""
