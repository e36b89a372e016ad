"""Owns the inference of keras_contrib's `CRF` layer: marginals and best paths, as its files were trained with.

A linear-chain conditional random field gives each step of a sequence a label that also depends on the labels
beside it. Files that hold one were trained and judged with keras_contrib's own arithmetic, three slips of which
are kept here, because the weights learnt to live with them:

- the backward pass uses the transitions of the forward pass instead of their transpose, and the marginals negate
  what both passes gave;
- with a mask, the energy of the end is added where padding turns into content, not where content ends;
- without a mask, the last step is decoded as if the label 0 followed it.

Training (its loss, its metrics) is left out; it needs nothing of it to serve.

Source: keras-team/keras-contrib@3fc5ef7 `keras_contrib/layers/crf.py`.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

_TRAINING_ONLY = tuple(
    f"{weight}_{part}"
    for weight in ("kernel", "chain", "boundary", "bias")
    for part in ("initializer", "regularizer", "constraint")
)


class CRF(keras.layers.Layer):  # type: ignore[misc]  # Keras publishes no types
    """`(N, T, features) float32` in, `(N, T, units) float32` out: one-hot labels, or probabilities.

    Energies are costs: the best path is the one of the smallest sum.

    Args:
        units: the number of labels.
        learn_mode: `join` or `marginal`: what it was trained for; with `join` no mask is passed on a step.
        test_mode: `viterbi` (one-hot best path) or `marginal` (probabilities); `None`: as `learn_mode` suggests.
        sparse_target: how labels were given in training; it changes nothing here.
        use_boundary: whether starting and ending with a label has a cost of its own.
        use_bias: whether there is a bias.
        activation: of the energies of single steps.
        input_dim, unroll: stored by its files; the input tells the one, the other changes nothing.
        **kwargs: initialisers, regularisers and constraints are taken and dropped: the weights come from the
            file.
    """

    def __init__(
        self,
        units: int,
        learn_mode: str = "join",
        test_mode: str | None = None,
        *,
        sparse_target: bool = False,
        use_boundary: bool = True,
        use_bias: bool = True,
        activation: Any = "linear",
        input_dim: int | None = None,
        unroll: bool = False,
        **kwargs: Any,
    ) -> None:
        for name in _TRAINING_ONLY:
            kwargs.pop(name, None)
        super().__init__(**kwargs)
        test_mode = test_mode or ("viterbi" if learn_mode == "join" else "marginal")
        if learn_mode not in ("join", "marginal") or test_mode not in ("viterbi", "marginal"):
            raise ValueError(
                "Expected learn_mode join or marginal and test_mode viterbi or marginal. "
                f"Received: {learn_mode!r} and {test_mode!r}."
            )
        self.supports_masking = True
        self.units, self.learn_mode, self.test_mode = units, learn_mode, test_mode
        self.sparse_target, self.input_dim, self.unroll = sparse_target, input_dim, unroll
        self.use_boundary, self.use_bias = use_boundary, use_bias
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights, in the order in which the files store them."""
        row = (self.units,)
        self.input_dim = input_shape[-1]
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
        self.chain_kernel = self.add_weight(shape=(self.units, self.units), name="chain_kernel")
        self.bias = self.add_weight(shape=row, initializer="zeros", name="bias") if self.use_bias else None
        if self.use_boundary:
            self.left_boundary = self.add_weight(shape=row, initializer="zeros", name="left_boundary")
            self.right_boundary = self.add_weight(shape=row, initializer="zeros", name="right_boundary")

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """`(N, T, features)` and an optional mask `(N, T) bool` in, `(N, T, units)` out."""
        energies = ops.matmul(inputs, self.kernel)
        energies = self.activation(energies if self.bias is None else energies + self.bias)
        if mask is not None:
            mask = ops.cast(mask, energies.dtype)
        if self.use_boundary:
            energies = self._with_boundaries(energies, mask)
        decode = self._best_path if self.test_mode == "viterbi" else self._marginals
        return decode(energies, mask)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """As its source: in `join` mode what remains of the mask is which rows have any content, `(N,)`."""
        del inputs
        if previous_mask is not None and self.learn_mode == "join":
            return ops.any(previous_mask, axis=1)
        return previous_mask

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """`(N, T, units)`."""
        return (*input_shape[:2], self.units)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = ("units", "learn_mode", "test_mode", "sparse_target", "use_boundary", "use_bias", "input_dim")
        own = {name: getattr(self, name) for name in (*names, "unroll")}
        return {**super().get_config(), **own, "activation": keras.activations.serialize(self.activation)}

    def _with_boundaries(self, energies: Any, mask: Any) -> Any:
        if mask is None:
            steps = ops.arange(ops.shape(energies)[1])
            starts = ops.cast(steps == 0, energies.dtype)[None]
            ends = ops.cast(steps == ops.shape(energies)[1] - 1, energies.dtype)[None]
        else:
            starts = ops.cast(mask > _later(mask), energies.dtype)
            ends = ops.cast(_earlier(mask) > mask, energies.dtype)
        return energies + starts[..., None] * self.left_boundary + ends[..., None] * self.right_boundary

    def _steps(self, energies: Any, mask: Any, *, reverse: bool) -> tuple[Any, Any]:
        """What a pass goes through, time first: energies `(T, N, units)` and weights of links `(T, N, 1, 1)`."""
        if mask is None:
            links = ops.ones_like(energies[:, :, 0])
        else:
            links = mask * (_later(mask) if reverse else _earlier(mask))
            energies = energies * mask[..., None]
        return ops.transpose(energies, (1, 0, 2)), ops.transpose(links)[..., None, None]

    def _reached(self, energies: Any, mask: Any, *, reverse: bool) -> Any:
        """Log of the summed weights of all paths up to each step, `(T, N, units)`."""

        def step(before: Any, now: tuple[Any, Any]) -> tuple[Any, Any]:
            energy, link = now
            cost = self.chain_kernel * link + (energy - before)[:, :, None]
            after = ops.logsumexp(-cost, axis=1)
            return after, after

        steps = self._steps(energies, mask, reverse=reverse)
        return ops.scan(step, ops.zeros_like(energies[:, 0]), steps, reverse=reverse)[1]

    def _marginals(self, energies: Any, mask: Any) -> Any:
        forward = ops.transpose(self._reached(energies, mask, reverse=False), (1, 0, 2))
        backward = ops.transpose(self._reached(energies, mask, reverse=True), (1, 0, 2))
        if mask is not None:
            energies = energies * mask[..., None]
        return ops.softmax(-(_later(forward) + energies + _earlier(backward)), axis=-1)

    def _best_path(self, energies: Any, mask: Any) -> Any:
        def step(before: Any, now: tuple[Any, Any]) -> tuple[Any, Any]:
            energy, link = now
            cost = self.chain_kernel * link + (energy + before)[:, :, None]
            # what a scan gives for each step has the type of what it carries
            return ops.min(cost, axis=1), ops.cast(ops.argmin(cost, axis=1), cost.dtype)

        def follow(after: Any, table: Any) -> tuple[Any, Any]:
            label = ops.take_along_axis(table, after, axis=1)
            return label, label

        start = ops.zeros_like(energies[:, 0])
        _, tables = ops.scan(step, start, self._steps(energies, mask, reverse=False))
        tables = ops.cast(tables, "int32")  # (T, N, units): the best label before each label
        _, labels = ops.scan(follow, tables[-1, :, :1], tables, reverse=True)
        return ops.one_hot(ops.transpose(labels[..., 0]), self.units, dtype=energies.dtype)


def _later(values: Any) -> Any:
    """`(N, T, ...)` moved one step to the right, zeros in front."""
    return ops.concatenate([ops.zeros_like(values[:, :1]), values[:, :-1]], axis=1)


def _earlier(values: Any) -> Any:
    """`(N, T, ...)` moved one step to the left, zeros behind."""
    return ops.concatenate([values[:, 1:], ops.zeros_like(values[:, :1])], axis=1)
