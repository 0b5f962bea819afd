"""Opens, imports and exports run folders."""
