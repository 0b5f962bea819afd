"""Generation: sampling and search with a cache that is passed in and returned."""
