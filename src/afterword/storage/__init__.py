"""Files: where they are, how they are written whole, read in bounded memory, hashed, locked and cached."""
