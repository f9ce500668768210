"""What a person gives: one tree of settings for each command, declared once, checked before anything runs."""
