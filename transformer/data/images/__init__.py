"""Images with labels: files, arrays, preparation, augmentation and batches."""
