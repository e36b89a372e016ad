"""Owns the names that need no custom_objects.py, for a doctor that does not import Keras.

tests/parity/test_doctor.py holds these lists against Keras 3.15.1 and `service.loading.builtin_objects`.
"""

from __future__ import annotations

LAYERS = frozenset(
    [
        *["Activation", "ActivityRegularization", "AdaptiveAveragePooling1D", "AdaptiveAveragePooling2D"],
        *["AdaptiveAveragePooling3D", "AdaptiveMaxPooling1D", "AdaptiveMaxPooling2D"],
        *["AdaptiveMaxPooling3D", "Add", "AdditiveAttention", "AlphaDropout", "Attention", "AugMix"],
        *["AutoContrast", "Average", "AveragePooling1D", "AveragePooling2D", "AveragePooling3D"],
        *["AvgPool1D", "AvgPool2D", "AvgPool3D", "BatchNormalization", "Bidirectional", "CategoryEncoding"],
        *["CenterCrop", "Concatenate", "ContrastLimitedAdaptiveHistogramEqualization", "Conv1D"],
        *["Conv1DTranspose", "Conv2D", "Conv2DTranspose", "Conv3D", "Conv3DTranspose", "ConvLSTM1D"],
        *["ConvLSTM2D", "ConvLSTM3D", "Convolution1D", "Convolution1DTranspose", "Convolution2D"],
        *["Convolution2DTranspose", "Convolution3D", "Convolution3DTranspose", "Cropping1D", "Cropping2D"],
        *["Cropping3D", "CutMix", "Dense", "DepthwiseConv1D", "DepthwiseConv2D", "Discretization", "Dot"],
        *["Dropout", "ELU", "EinsumDense", "Embedding", "Equalization", "Flatten", "FlaxLayer"],
        *["Functional", "GRU", "GRUCell", "GaussianDropout", "GaussianNoise", "GlobalAveragePooling1D"],
        *["GlobalAveragePooling2D", "GlobalAveragePooling3D", "GlobalAvgPool1D", "GlobalAvgPool2D"],
        *["GlobalAvgPool3D", "GlobalMaxPool1D", "GlobalMaxPool2D", "GlobalMaxPool3D", "GlobalMaxPooling1D"],
        *["GlobalMaxPooling2D", "GlobalMaxPooling3D", "GroupNormalization", "GroupQueryAttention"],
        *["HashedCrossing", "Hashing", "Identity", "InputLayer", "IntegerLookup", "JaxLayer", "LSTM"],
        *["LSTMCell", "Lambda", "Layer", "LayerNormalization", "LeakyReLU", "Masking"],
        *["MaxNumBoundingBoxes", "MaxPool1D", "MaxPool2D", "MaxPool3D", "MaxPooling1D", "MaxPooling2D"],
        *["MaxPooling3D", "Maximum", "MelSpectrogram", "Minimum", "MixUp", "Model", "MultiHeadAttention"],
        *["Multiply", "Normalization", "PReLU", "Permute", "Pipeline", "RMSNormalization", "RNN"],
        *["RandAugment", "RandomBrightness", "RandomColorDegeneration", "RandomColorJitter"],
        *["RandomContrast", "RandomCrop", "RandomElasticTransform", "RandomErasing", "RandomFlip"],
        *["RandomGaussianBlur", "RandomGrayscale", "RandomHue", "RandomInvert", "RandomPerspective"],
        *["RandomPosterization", "RandomRotation", "RandomSaturation", "RandomSharpness", "RandomShear"],
        *["RandomTranslation", "RandomZoom", "ReLU", "RepeatVector", "Rescaling", "Reshape", "Resizing"],
        *["ReversibleEmbedding", "STFTSpectrogram", "SeparableConv1D", "SeparableConv2D"],
        *["SeparableConvolution1D", "SeparableConvolution2D", "Sequential", "SimpleRNN", "SimpleRNNCell"],
        *["Softmax", "Solarization", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"],
        *["SpectralNormalization", "StackedRNNCells", "StringLookup", "Subtract", "TFSMLayer"],
        *["TextVectorization", "TimeDistributed", "TorchModuleWrapper", "UnitNormalization"],
        *["UpSampling1D", "UpSampling2D", "UpSampling3D", "Wrapper", "ZeroPadding1D", "ZeroPadding2D"],
        *["ZeroPadding3D"],
    ]
)
"""Layers and models of Keras."""

ACTIVATIONS = frozenset(
    [
        *["celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu"],
        *["hard_swish", "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu"],
        *["relu6", "selu", "sigmoid", "silu", "soft_shrink", "softmax", "softplus", "softsign"],
        *["sparse_plus", "sparse_sigmoid", "sparsemax", "squareplus", "swish", "tanh", "tanh_shrink"],
        *["threshold"],
    ]
)
"""Activations of Keras."""

BUILTIN_OBJECTS = frozenset(
    [
        *["CRF", "FixedDropout", "InstanceNormalization", "L2Norm", "L2Normalization", "Scale"],
        *["binary_focal_loss", "coeff_determination", "dice_coef", "dice_coef_loss", "dice_loss", "f1"],
        *["f1_m", "iou_coef", "jaccard_coef", "mcor", "precision", "precision_m", "recall", "recall_m"],
        *["rmse", "root_mean_squared_error"],
    ]
)
"""What `service.loading.builtin_objects` brings."""
