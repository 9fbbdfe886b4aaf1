"""The index directory: what lies in it, how it is written, read, checked and kept small."""
