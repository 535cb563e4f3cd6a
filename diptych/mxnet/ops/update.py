"""Optimizer steps: operators that give the new weight and change their state in place."""

from __future__ import annotations
