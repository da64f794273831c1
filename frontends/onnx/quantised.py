"""ONNX's quantised operators are not imported yet; the reasons are registered here."""

from .registry import refuse

refuse(
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul",
    "ConvInteger", "MatMulInteger",
    reason="quantised ONNX models cannot be imported yet; import the float model and let Nacre quantise it",
)  # fmt: skip
