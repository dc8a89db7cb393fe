"""Packed files in numpy alone: forms of tensors, the file that holds them, and skeletons of runtimes' files."""
