"""Limits on the files that are read, each with its reason.

Each is several times what any published model or data set needs, and small enough that reading a
file at the limit takes seconds, and memory of some ten times the file.
"""

# ------------------------------------------------------------------------------ published models

# Bytes of a JSON or text file beside the weights. The largest known has 33 MB (Gemma 3's
# tokenizer.json); as objects of Python it takes ten times as much.
TEXT_BYTES = 100 << 20
# Bytes of the header of a safetensors file; the library's own limit.
HEADER_BYTES = 100_000_000
# Bytes of the pickle in an archive of PyTorch, which takes some 300 for a tensor.
PICKLE_BYTES = 1 << 24
# Brackets within brackets. A tokenizer.json has 7; the library `tokenizers` reads 127.
DEPTH = 64
# Digits of a whole number: "no limit" is written as 10^30, and Python reads no more than 4,300.
DIGITS = 40
# Tokens of a vocabulary, and so ids: tables are as long as the largest id. XLM-V has 0.9 million.
TOKENS = 1 << 24
# Characters of one token; to find its merges takes time that grows with their square. Those of
# published vocabularies have up to some 130.
TOKEN_CHARACTERS = 1024
# Any size or length of a model. Llama 4 has 10,485,760 positions.
SIZE = 1 << 28
# Layers or experts, if no array determines their number. Llama 3.1 has 126 layers.
LAYERS = 10_000
# Axes of an array; NumPy has 64 at most.
AXES = 8
# Pixels of a side of an image.
PIXELS = 1 << 14
# Arrays, or metadata, of one file. Grok 1 has some 20,000 arrays.
ARRAYS = 1 << 20
# Tokens that are generated at once, or read as one row.
LENGTH = 1 << 20
# Beams of a search; each needs its own copy of the decoder's cache.
BEAMS = 1000

# -------------------------------------------------------------------------------------- data sets

# Bytes to which any compressed file may expand.
UNPACKED_BYTES = 1 << 26
# Beyond that, the largest ratio of expanded to compressed size. Texts and images expand 2 to 20
# times; only repetitions expand 1,000 times.
EXPANSION = 50
# Bytes of memory that unpacking may take. The highest level of xz takes 65 MiB.
UNPACKER_BYTES = 1 << 27
# Bytes of a pipe.
PIPED_BYTES = 1 << 30
# Bytes of a line of standard input.
LINE_BYTES = 1 << 26
# Bytes of an image file.
IMAGE_BYTES = 1 << 30
# Characters of the header of an array of NumPy, which says its type and its shape.
NPY_HEADER = 1024
