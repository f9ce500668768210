"""`afterword demo`: the embedded model meets documents of its world's future, is taught them, and shows both sides."""
