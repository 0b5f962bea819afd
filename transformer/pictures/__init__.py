"""All pictures that are drawn with matplotlib."""
