"""Corpora taught one after another: each stage begins with the last one's result, and is held to the first model.

`stages` what is run and read, `measured` one model on all corpora, `transfer` what a matrix of them comes to, `summary`
measurements → sequence.json, `run` the stages in their order. Nothing is imported here, because the command line reads
the settings without torch.
"""
