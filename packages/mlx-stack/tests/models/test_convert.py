from mlx_catalog import Quant
from mlx_stack.models.convert import expected_bytes, needed_memory_bytes

GB = 10**9


def test_a_conversion_is_planned_with_scales_and_biases():
    assert expected_bytes(16 * GB, Quant.INT4) == 4.5 * GB
    assert expected_bytes(16 * GB, Quant.INT8) == 8.5 * GB
    assert needed_memory_bytes(2 * GB) == 4 * GB + (1 << 30)
    assert needed_memory_bytes(500 * GB) == needed_memory_bytes(50 * GB)
