"""Text that a model writes about documents, so that they are told in more than one way.

Arrows: below the methods that train on it and the command that writes it to a folder; above writing and corpus.
"""
