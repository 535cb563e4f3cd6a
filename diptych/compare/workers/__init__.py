"""What runs inside an engine's own process: `worker.py` is the process, each `*_engine.py` teaches it one engine.

These files are started by path, some under another Python that has no diptych: they import the standard library,
NumPy and their own framework, nothing else.
"""
