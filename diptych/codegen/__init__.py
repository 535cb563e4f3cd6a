"""Typed building of LLVM IR, vector math, programs, object code. Knows `ir` only."""
