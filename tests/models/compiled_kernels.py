"""The kernels compiled for CUDA devices that are not there: registers, stack, shared memory and matrix instructions.

usage: python -m tests.models.compiled_kernels ARCH [TYPE PRECISION]   e.g. 90 bf16 ieee; prints JSON
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from models_torch.attention import kernel_backward, kernel_forward
from models_torch.attention.kernels import MOST_OTHERS, MOST_ROWS, compiled_for

KERNELS = {
    "attend": (kernel_forward.attend, False),
    "of_queries": (kernel_backward.of_queries, False),
    "of_keys": (kernel_backward.of_keys, True),
}
OURS = {"q", "k", "v", "context", "grad", "dq", "dk", "dv"}  # of the model's type
WIDE = {"logs", "parts", "part_logs", "delta", "dk_parts", "dv_parts"}
INDICES = {"rows", "blocks", "counts", "lives", "owners", "parts_of"}


def signature(kernel, dtype, constants):
    def type_of(name):
        if name in constants:
            return "constexpr"
        if name in OURS | WIDE | INDICES | {"mask"}:
            return "*" + (dtype if name in OURS else "fp32" if name in WIDE else "i32" if name in INDICES else "u8")
        return "fp32" if name in ("scale", "plain_scale") else "i32"

    return {name: type_of(name) for name in kernel.arg_names}


def compiled(kernel, over_keys, arch, dtype, precision):
    """What one kernel takes with blocks and heads of 64."""
    sizes = {"W": 64, "H": 64, "BQ": MOST_ROWS, "BK": MOST_OTHERS, "BH": 64, "PRECISION": precision}
    types = signature(kernel, dtype, sizes)
    pointers = {name for name, kind in types.items() if kind[0] == "*"}
    aligned = [i for i, x in enumerate(types) if x in pointers or re.fullmatch("[qkvg]_[bnl]", x)]
    source = ASTSource(
        fn=kernel, signature=types, constexprs=sizes, attrs={(i,): [["tt.divisibility", 16]] for i in aligned}
    )
    made = triton.compile(
        source,
        target=GPUTarget("cuda", arch, 32),
        options=compiled_for(MOST_ROWS, (dtype, precision) == ("fp32", "ieee"), over_keys),
    )
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        used, listing = (
            subprocess.run([tool, what, file.name], capture_output=True, text=True, check=True).stdout
            for what in ("--dump-resource-usage", "-sass")
        )
    found = {name.lower(): int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", used)}
    matrix = len(re.findall(r"\b(?:HGMMA|HMMA|UTCHMMA)\b", listing))
    spills = len(re.findall(r"\b(?:STL|LDL)\b", listing))
    return found | {"shared": made.metadata.shared, "matrix": matrix, "spills": spills}


if __name__ == "__main__":
    arch, dtype, precision = (*sys.argv[1:], *("90", "bf16", "ieee")[len(sys.argv) - 1 :])
    result = {name: compiled(*kernel, int(arch), dtype, precision) for name, kernel in KERNELS.items()}
    print(json.dumps(result))  # noqa: T201
