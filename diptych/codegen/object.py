"""LLVM module -> object code: verification, the optimisation pipeline, machine code."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from llvmlite import binding

if TYPE_CHECKING:
    from llvmlite import ir

    from diptych.targets.base import Target

__all__ = ["assembly", "object_code"]


@cache
def _initialize() -> None:
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()


def _optimized(module: ir.Module, target: Target) -> tuple[binding.ModuleRef, binding.TargetMachine]:
    _initialize()
    machine = binding.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="small"
    )
    module.triple = target.triple
    module.data_layout = str(machine.target_data)
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    options = binding.create_pipeline_tuning_options(speed_level=2)
    # Kernels state their own vectors and unrolling; LLVM's guesses cost compile time and spoil register tiles.
    options.loop_vectorization = False
    options.slp_vectorization = False
    options.loop_unrolling = False
    options.loop_interleaving = False
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(parsed, builder)
    return parsed, machine


def object_code(module: ir.Module, target: Target) -> bytes:
    """The relocatable object (ELF on Linux) of a module."""
    parsed, machine = _optimized(module, target)
    return bytes(machine.emit_object(parsed))


def assembly(module: ir.Module, target: Target) -> str:
    """The assembly text of a module, for inspection and for tests that count instructions."""
    parsed, machine = _optimized(module, target)
    return str(machine.emit_assembly(parsed))
