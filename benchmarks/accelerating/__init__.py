"""What `benchmarks/accelerator.py` measures, each file one part of it."""
