"""The ONNX file that convert wrote as a witness, in onnxruntime."""

from __future__ import annotations

from parity.exports.with_exported import ExportedWitness, load_exported
from parity.witnesses.witness import Setting, Source


def load(source: Source, setting: Setting) -> ExportedWitness:
    """Load the ONNX program; raises ValueError where there is none, or onnxruntime is not installed."""
    return load_exported("onnx", source, setting)
