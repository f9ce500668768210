"""Mix-CPT's second stage: a few general samples, selected by scores, give a model its format by SFT and DPO.

`settings` what a person gives, `templates` dialogues as token ids in a chat template, `samples` which of them can be
used, `preparing` all that needs no weights, checked, `selecting` scores and rules, `sft` and `dpo` the two trainings by
trl, `stages` what those share, `running` the whole. Nothing is imported here, because the command line reads the
settings without torch.
"""
