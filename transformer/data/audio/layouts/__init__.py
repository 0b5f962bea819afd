"""Forms in which sets of recordings are kept; a file with a `LAYOUT` adds one."""
