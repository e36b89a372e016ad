"""Owns which of TensorFlow's operations OpenVINO may stand in for: those that take any value, in 32 bits or less.

A name that is not here is refused, so that a new one is read up on before it is relied on: does its kernel reject
values, and has OpenVINO a rule for it that says the same of all others?

Source: `OP_REQUIRES` in tensorflow/core/kernels of TensorFlow 2.21; the operations that the layers of Keras 3.15.1
are made of, compared one by one with OpenVINO 2026.4.1.
"""

from __future__ import annotations

MOVES = frozenset([
    "Placeholder", "Const", "ReadVariableOp", "NoOp", "Identity", "IdentityN", "StopGradient",
    "Reshape", "Squeeze", "ExpandDims", "Transpose", "ConcatV2", "Pack", "Unpack", "Split", "SplitV", "Slice",
    "StridedSlice", "Pad", "PadV2", "MirrorPad", "Tile", "BroadcastTo", "ReverseV2", "BatchToSpaceND",
    "SpaceToBatchND", "DepthToSpace", "SpaceToDepth", "Select", "SelectV2", "GatherV2", "OneHot",
    "Shape", "Size", "Rank", "Range", "Fill", "ZerosLike", "OnesLike", "Cast",
    "Equal", "NotEqual", "Less", "LessEqual", "Greater", "GreaterEqual",
    "LogicalAnd", "LogicalNot", "LogicalOr", "All", "Any",
    "PartitionedCall", "StatefulPartitionedCall", "While", "StatelessWhile",
    "TensorListReserve", "TensorListFromTensor", "TensorListGetItem", "TensorListSetItem", "TensorListStack",
])  # fmt: skip
"""They compute no numbers, so that the width of a number does not matter. Indices of GatherV2 are checked."""

COMPUTES = frozenset([
    "Add", "AddN", "AddV2", "Sub", "Mul", "Neg", "Abs", "Sign", "RealDiv", "Reciprocal", "Square",
    "SquaredDifference", "Sqrt", "Rsqrt", "Exp", "Expm1", "Log", "Log1p", "Sin", "Cos", "Erf", "Erfc",
    "Floor", "Round", "Maximum", "Minimum", "IsFinite", "IsInf", "IsNan",
    "Sum", "Mean", "Prod", "Max", "Min", "ArgMax", "ArgMin", "Cumsum", "TopKV2",
    "MatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "BiasAdd", "FusedBatchNormV3",
    "Conv2D", "Conv2DBackpropInput", "Conv3D", "Conv3DBackpropInputV2", "DepthwiseConv2dNative",
    "AvgPool", "AvgPool3D", "MaxPool", "MaxPool3D", "ResizeBilinear", "ResizeNearestNeighbor",
    "Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Softmax", "LogSoftmax",
])  # fmt: skip
"""Of floats, and of int32; other integers OpenVINO computes in 32 bits, where TensorFlow wraps around elsewhere."""

COMPUTES_FLOATS = frozenset(["Div", "FloorDiv", "FloorMod", "Pow", "Xdivy"])
"""Of floats only: of integers TensorFlow rejects division by zero and negative powers."""
