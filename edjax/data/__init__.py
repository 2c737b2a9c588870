"""What comes in: rows and their ids, turns and tools in them, the pool, and its columns of numbers.

names.py      what those names say before anything is read
sources.py    what a pool may be named by: files, patterns, directories, standard input, hub ids
packed.py     bytes out of files that are packed, or in UTF-16
rows.py       a row as it comes, and JSON
delimited.py  CSV and its kin
stored.py     Parquet, `datasets`, the hub
turns.py      what a row means: the turns of its prompt, the response
tools.py      functions that a model may call
ids.py        names of rows
reading.py    the options that say how a pool is read
pool.py       prompts, their ids, responses where there are any
written.py    rows as lines where they came without
arrays.py     arrays in files, read a part at a time
stream.py     embeddings that stay in files
features.py   what is known of every prompt: an embedding, and columns by name
"""
