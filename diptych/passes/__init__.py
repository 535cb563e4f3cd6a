"""Graph -> Graph, one file for each; `diptych.compiler.optimize` states the order."""
