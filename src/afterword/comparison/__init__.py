"""Grids of runs: arms × learning rates × seeds, and what they say of learning against retention.

`settings` what a person gives, `grid` the cells and what tells one from another, `running` the runs and their rows,
`costs` what a cell took, `frontier` dominance, hypervolume and pick, `summarising` rows → compare.json.
Nothing is imported here, because the command line reads the settings without torch.
"""
