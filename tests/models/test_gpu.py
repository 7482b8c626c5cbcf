"""The same models on an accelerator, where there is one, against the original's outputs."""

import jax
import numpy as np
import pytest
import torch

import models_flax
import models_torch
from parity.given.golden import read_golden
from tests.conftest import GOLDEN

pytestmark = pytest.mark.gpu
LIMIT = 2e-5  # float32 without TF32; another order of summation than on the CPU
CASE = GOLDEN["mini-pretrain"].cases[0]


def assert_close(hidden, case):
    real = case.inputs["input_ids"] != 0
    np.testing.assert_allclose(hidden[real], case.tensors["sequence_output"][real], rtol=0, atol=LIMIT)


def test_torch_on_cuda(converted):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.set_float32_matmul_precision("highest")
    case = read_golden(CASE)
    out = converted("mini-pretrain")
    model = models_torch.BigBirdModel.from_pretrained(out, max_encoder_length=case.max_encoder_length).cuda()
    with torch.no_grad():
        output = model(**{name: torch.from_numpy(x).cuda() for name, x in case.inputs.items()})
    assert_close(output.last_hidden_state.cpu().numpy(), case)


def test_flax_on_an_accelerator(converted):
    devices = [device for device in jax.devices() if device.platform in ("gpu", "cuda", "rocm", "tpu")]
    if not devices:
        pytest.skip("no GPU or TPU that jax sees")
    case = read_golden(CASE)
    out = converted("mini-pretrain")
    model = models_flax.FlaxBigBirdModel.from_pretrained(out, max_encoder_length=case.max_encoder_length)
    with jax.default_device(devices[0]), jax.default_matmul_precision("highest"):
        params = jax.device_put(model.params, devices[0])
        output = model(**case.inputs, params=params)
    assert_close(np.asarray(output.last_hidden_state), case)
