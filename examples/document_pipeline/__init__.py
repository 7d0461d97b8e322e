"""Index every module of the Python standard library, over a queue. The page is README.md, beside this file."""
