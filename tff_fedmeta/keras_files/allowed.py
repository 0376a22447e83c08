"""What a Keras file from elsewhere may name: the table that everything else is refused by.

A name is in the table because what it stands for computes numbers from numbers. Not in it are
`Lambda` (Python code), `StringLookup`, `IntegerLookup`, `TextVectorization` and `DenseFeatures`
(read vocabulary files), `LocallyConnected1D` and `2D` (a Python loop over every position),
`SyncBatchNormalization` (talks to other processes), and every TensorFlow operation that reads or
writes files, prints, calls Python, draws random numbers or makes a tensor of a size that stands in
the file alone (`fill`, `range`, `eye`) or a Python object of each part of one (`unstack`).
"""

from __future__ import annotations

import itertools

FUNCTIONAL = ("keras.src.engine.functional", "Functional")
SEQUENTIAL = ("keras", "Sequential")
OPERATIONS_MODULE = "keras.src.layers.core.tf_op_layer"
OPERATION_LAYERS = ("TFOpLambda", "SlicingOpLambda")


def _dimensions(*names: str) -> list[str]:
    return [f"{name}{d}D" for name, d in itertools.product(names, (1, 2, 3))]


LAYERS = frozenset(
    [
        *("InputLayer", "Dense", "EinsumDense", "Embedding", "Masking", "Identity", "Flatten"),
        *("Reshape", "Permute", "RepeatVector", "ActivityRegularization"),
        *("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "ThresholdedReLU", "Softmax"),
        *_dimensions("Conv", "AveragePooling", "MaxPooling"),
        *_dimensions("GlobalAveragePooling", "GlobalMaxPooling"),
        *_dimensions("Cropping", "UpSampling", "ZeroPadding", "ConvLSTM", "SpatialDropout"),
        *("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
        *("SeparableConv1D", "SeparableConv2D", "DepthwiseConv1D", "DepthwiseConv2D"),
        *("BatchNormalization", "LayerNormalization", "GroupNormalization", "UnitNormalization"),
        *("Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise"),
        *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot"),
        *("Attention", "AdditiveAttention", "MultiHeadAttention"),
        *("RNN", "StackedRNNCells", "SimpleRNN", "SimpleRNNCell"),
        *("LSTM", "LSTMCell", "GRU", "GRUCell"),
        *("Bidirectional", "TimeDistributed"),
        *("Normalization", "Rescaling", "Resizing", "CenterCrop", "Discretization"),
        *("CategoryEncoding", "Hashing", "HashedCrossing"),
        *("RandomBrightness", "RandomContrast", "RandomCrop", "RandomFlip", "RandomHeight"),
        *("RandomRotation", "RandomTranslation", "RandomWidth", "RandomZoom"),
    ]
)

# module -> classes
CLASSES: dict[str, frozenset[str]] = {
    FUNCTIONAL[0]: frozenset([FUNCTIONAL[1]]),
    SEQUENTIAL[0]: frozenset([SEQUENTIAL[1]]),
    OPERATIONS_MODULE: frozenset(OPERATION_LAYERS),
    "keras.layers": LAYERS,
    "keras.initializers": frozenset(
        [
            *("Constant", "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "Identity"),
            *("LecunNormal", "LecunUniform", "Ones", "Orthogonal", "RandomNormal"),
            *("RandomUniform", "TruncatedNormal", "VarianceScaling", "Zeros"),
        ]
    ),
    # What `tf.constant_initializer` and its like are saved as.
    "tensorflow.python.ops.init_ops_v2": frozenset(
        ["Constant", "Ones", "RandomNormal", "RandomUniform", "VarianceScaling", "Zeros"]
    ),
    "keras.regularizers": frozenset(["L1", "L2", "L1L2", "OrthogonalRegularizer"]),
    "keras.constraints": frozenset(
        ["MaxNorm", "MinMaxNorm", "NonNeg", "RadialConstraint", "UnitNorm"]
    ),
    "keras.mixed_precision": frozenset(["Policy"]),
}

ACTIVATIONS = frozenset(
    [
        *("elu", "exponential", "gelu", "hard_sigmoid", "linear", "mish", "relu", "selu"),
        *("sigmoid", "softmax", "softplus", "softsign", "swish", "tanh"),
    ]
)
FUNCTION_MODULES = frozenset(["builtins", "keras.activations"])

# Of arrays that stand in a configuration.
DTYPES = frozenset(
    [
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "bfloat16", "float32", "float64"),
    ]
)

# As `TFOpLambda` and `SlicingOpLambda` write them. TensorFlow keeps some under a first name.
_MATH = (
    *("abs", "acos", "acosh", "add", "add_n", "argmax", "argmin", "asin", "asinh", "atan"),
    *("atan2", "atanh", "ceil", "cos", "cosh", "count_nonzero", "cumprod", "cumsum", "digamma"),
    *("divide", "divide_no_nan", "equal", "erf", "erfc", "exp", "expm1", "floor", "floordiv"),
    *("floormod", "greater", "greater_equal", "is_finite", "is_inf", "is_nan", "l2_normalize"),
    *("less", "less_equal", "lgamma", "log", "log1p", "log_sigmoid", "log_softmax"),
    *("logical_and", "logical_not", "logical_or", "logical_xor", "maximum", "minimum", "mod"),
    *("multiply", "multiply_no_nan", "negative", "not_equal", "pow", "reciprocal"),
    *("reciprocal_no_nan", "reduce_all", "reduce_any", "reduce_euclidean_norm"),
    *("reduce_logsumexp", "reduce_max", "reduce_mean", "reduce_min", "reduce_prod", "reduce_std"),
    *("reduce_sum", "reduce_variance", "rint", "round", "rsqrt", "scalar_mul", "sigmoid", "sign"),
    *("sin", "sinh", "softmax", "softplus", "softsign", "sqrt", "square", "squared_difference"),
    *("subtract", "tan", "tanh", "top_k", "truediv", "xdivy", "xlogy"),
)
_NN = (
    *("avg_pool", "avg_pool1d", "avg_pool2d", "bias_add", "conv1d", "conv2d", "depthwise_conv2d"),
    *("elu", "embedding_lookup", "gelu", "l2_normalize", "leaky_relu", "log_softmax", "max_pool"),
    *("max_pool1d", "max_pool2d", "relu", "relu6", "selu", "sigmoid", "silu", "softmax"),
    *("softplus", "softsign", "swish", "tanh"),
)
_LINALG = ("band_part", "diag_part", "einsum", "matmul", "matrix_transpose", "matvec", "norm")
_OTHER = (
    *("argsort", "boolean_mask", "broadcast_to", "cast", "clip_by_value", "concat", "einsum"),
    *("expand_dims", "floor_div", "gather", "gather_nd", "identity", "norm", "one_hot"),
    *("ones_like", "pad", "rank", "repeat", "reshape", "reverse", "roll", "sequence_mask"),
    *("shape", "size", "slice", "sort", "split", "squeeze", "stack", "stop_gradient"),
    *("strided_slice", "tensordot", "tile", "transpose", "where", "zeros_like"),
    *("__operators__.add", "__operators__.getitem", "__operators__.ragged_getitem"),
)
_NAMES = (
    *_OTHER,
    *(f"math.{name}" for name in _MATH),
    *(f"nn.{name}" for name in _NN),
    *(f"linalg.{name}" for name in _LINALG),
)
OPERATIONS = frozenset([*_NAMES, *(f"compat.v1.{name}" for name in _NAMES)])
