"""Limits on the files of a published model, each with its reason.

Each is several times what any published model needs, and small enough that reading a file at the
limit takes seconds, and memory of some ten times the file.
"""

# Bytes of a JSON or text file beside the weights. The largest known has 33 MB (Gemma 3's
# tokenizer.json); as objects of Python it takes ten times as much.
TEXT_BYTES = 100 << 20
# Bytes of the header of a safetensors file; the library's own limit.
HEADER_BYTES = 100_000_000
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
