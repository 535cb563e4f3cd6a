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


def _passes(machine: binding.TargetMachine, light: bool) -> tuple[binding.ModulePassManager, binding.PassBuilder]:
    options = binding.create_pipeline_tuning_options(speed_level=2)
    # Kernels state their own vectors and unrolling; LLVM's guesses cost compile time and spoil register tiles.
    options.loop_vectorization = False
    options.slp_vectorization = False
    options.loop_unrolling = False
    options.loop_interleaving = False
    builder = binding.create_pass_builder(machine, options)
    if not light:
        return builder.getModulePassManager(), builder
    # One function with its loops as it wants them: common subexpressions and dead code are all there is to find. The
    # pipeline above takes four times as long.
    found = binding.create_new_module_pass_manager()
    found.add_simplify_cfg_pass()
    found.add_sroa_pass()
    found.add_instruction_combine_pass()
    found.add_new_gvn_pass()
    found.add_instruction_combine_pass()
    found.add_simplify_cfg_pass()
    return found, builder


def _optimized(module: ir.Module, target: Target, light: bool) -> tuple[binding.ModuleRef, binding.TargetMachine]:
    _initialize()
    machine = binding.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="small"
    )
    module.triple = target.triple
    module.data_layout = str(machine.target_data)
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    passes, builder = _passes(machine, light)
    passes.run(parsed, builder)
    return parsed, machine


def object_code(module: ir.Module, target: Target, light: bool = False) -> bytes:
    """The relocatable object (ELF on Linux) of a module; `light`: by the few passes that such code needs."""
    parsed, machine = _optimized(module, target, light)
    return bytes(machine.emit_object(parsed))


def assembly(module: ir.Module, target: Target, light: bool = False) -> str:
    """The assembly text of a module, for inspection and for tests that count instructions."""
    parsed, machine = _optimized(module, target, light)
    return str(machine.emit_assembly(parsed))
