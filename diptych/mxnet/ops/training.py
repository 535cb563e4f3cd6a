"""The training forms of operators: batch statistics, dropout masks, gradients of loss layers."""

from __future__ import annotations
