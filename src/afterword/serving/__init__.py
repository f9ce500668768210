"""Results for other people's programs: a GGUF file by llama.cpp's converter, read back, and ollama's Modelfile."""
