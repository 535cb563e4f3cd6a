"""The machines code is made for, and the NumPy interpreter."""
