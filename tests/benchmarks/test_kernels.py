"""The kernels compile for TPUs that are not there, and their schedules are read as the compiler wrote them."""

import pytest

from benchmarks import kernels

BUNDLES = """
     0   :  { %1 = vsyncpa [#allocation1], 0 }
  0x1 LB: > { %p1 = scmp.ne.s32.totalorder %s1, 0 }
  0x2   : > { %2 = sbr.rel (%p1) target = $region7 }
  0x3   : >> { %3 = vst [vmem:[%s2] sm:$0xff] %v1 }
  0x4   : >> { %p4 = scmp.ge.s32.totalorder %s1, 64 /* loop exit test */
second line of a bundle */ }
  0x5 PF: > { %5 = vmatmul.bf16.gmra.mxu0 %v1 } /* Start/End empty region 7 */
  0x6   : > { %6 = vst [vmem:[#allocation2_spill] sm:$0xff] %v2 }
"""
USE = "== CAPACITY:\nMXU, VALU, VSTORE:SPILL\n 4 4 1\n== UTILIZATION:\n"


def written(folder, products):
    """A compiler's files; products: of the bundle that is leapt over, and of the step's own."""
    (folder / "1-bigbird_forward.1-72-final_bundles.txt").write_text(BUNDLES)
    rows = [(0, 0, 0), (0, 1, 0), (0, 0, 0), (products[0], 0, 0), (0, 0, 0), (products[1], 2, 0), (0, 0, 1)]
    text = USE + "".join(" ".join(map(str, row)) + "\n" for row in rows)
    (folder / "1-bigbird_forward.1-70-final_hlo-static-per-bundle-utilization.txt").write_text(text)
    return kernels.schedule(folder, "bigbird_forward")


def test_what_runs_once_is_not_counted_in_every_step(tmp_path):
    found = written(tmp_path, products=(0, 4))
    assert found["bundles_a_step"] == 4
    assert found["bundles_once"] == 2 * 64
    assert found["spills"] == 1
    assert found["use"] == {"MXU": 0.25, "VALU": 0.188, "VSTORE:SPILL": 0.25}


def test_a_part_with_products_is_counted_in_every_step(tmp_path):
    found = written(tmp_path, products=(4, 4))
    assert (found["bundles_a_step"], found["bundles_once"]) == (6, 0)


@pytest.mark.slow
@pytest.mark.parametrize("chip", kernels.CHIPS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_kernels_compile(chip, dtype):
    if not kernels.has_compiler():
        pytest.skip(kernels.NO_COMPILER)
    row = kernels.measured(chip, dtype, 1024)
    assert "error" not in row, row
    assert row["forward"]["use"]["MXU"] > 0.1
    assert row["gradient_ms"] > row["forward_ms"] > 0
