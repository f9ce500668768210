"""How the embedded models are made: what they read, the stages of their training, their bars and cards.

No part of an installation: it lies beside the package, reads it, and writes into its weights.
"""
