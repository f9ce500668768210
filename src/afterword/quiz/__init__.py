"""A quiz from documents: questions with short answers, each checked with the model that they are to be asked of.

Arrows: above writing and evaluation's way of comparing answers; below the command line.
"""
