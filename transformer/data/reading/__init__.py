"""From bytes to text, numbers and JSON, with limits on their sizes."""
