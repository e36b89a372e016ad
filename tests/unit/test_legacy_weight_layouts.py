"""Arrays of older layouts, brought to Keras 3's: what is turned, joined and spread is said by plain loops here."""

import numpy as np

from service.loading.legacy.weight_layouts import Unit, converted, saved_count

GENERATOR = np.random.default_rng(0)


def arrays(*shapes):
    return [GENERATOR.normal(size=shape) for shape in shapes]


def test_arrays_that_need_nothing_are_left_alone():
    given = arrays((3, 4), (4,))
    assert converted(Unit("Dense", [(3, 4), (4,)], keras1=True), given) is given


def test_keras_1_gates_are_joined_in_todays_order():
    unit = Unit("LSTM", [(3, 8), (2, 8), (8,)], keras1=True)
    gates = {gate: arrays((3, 2), (2, 2), (2,)) for gate in "icfo"}
    kernel, recurrent, bias = converted(unit, [array for gate in "icfo" for array in gates[gate]])
    assert saved_count(unit) == 12
    for place, gate in enumerate("ifco"):
        own = slice(2 * place, 2 * place + 2)
        np.testing.assert_array_equal(kernel[:, own], gates[gate][0])
        np.testing.assert_array_equal(recurrent[:, own], gates[gate][1])
        np.testing.assert_array_equal(bias[own], gates[gate][2])


def test_keras_1_channels_first_kernels():
    (kernel,) = arrays((5, 3, 2, 4))  # (out, in, rows, columns)
    unit = Unit("Conv2D", [(2, 4, 3, 5)], channels_first=True, keras1=True)
    (found,) = converted(unit, [kernel])
    assert all(found[r, c, i, o] == kernel[o, i, r, c] for r, c, i, o in np.ndindex(found.shape))


def test_keras_1_kernels_of_sequences_had_an_axis_more():
    (kernel,) = arrays((3, 1, 4, 5))
    (found,) = converted(Unit("Conv1D", [(3, 4, 5)], keras1=True), [kernel])
    np.testing.assert_array_equal(found, kernel[:, 0])
    (older,) = converted(Unit("Conv1D", [(3, 4, 5)], keras1=True), [kernel.transpose(3, 2, 0, 1)])
    np.testing.assert_array_equal(older, kernel[:, 0])


def test_theano_turned_its_kernels():
    kernel, bias = arrays((2, 3, 4, 5), (5,))
    found, same = converted(Unit("Conv2D", [(2, 3, 4, 5), (5,)], theano=True), [kernel, bias])
    assert all(found[r, c, i, o] == kernel[1 - r, 2 - c, i, o] for r, c, i, o in np.ndindex(found.shape))
    assert same is bias


def test_theano_left_other_layers_alone():
    given = arrays((2, 3, 4, 1), (1, 1, 4, 5))
    assert converted(Unit("SeparableConv2D", [array.shape for array in given], theano=True), given) == given


def test_cudnn_gates_are_turned_and_its_two_biases_added():
    kernel, recurrent, bias = arrays((3, 8), (2, 8), (16,))
    unit = Unit("LSTM", [(3, 8), (2, 8), (8,)])
    found = converted(unit, [kernel, recurrent, bias])
    for gate in range(4):
        own = slice(2 * gate, 2 * gate + 2)
        np.testing.assert_array_equal(found[0][:, own], column_by_column(kernel[:, own]))
        np.testing.assert_array_equal(found[1][:, own], recurrent[:, own].T)
    np.testing.assert_allclose(found[2], bias[:8] + bias[8:])


def column_by_column(gate):
    """The same numbers, row by row in memory, laid out column by column."""
    found = np.empty_like(gate)
    for place, value in enumerate(gate.reshape(-1)):
        found[place % gate.shape[0], place // gate.shape[0]] = value
    return found


def test_parameters_shared_along_an_axis_are_spread():
    (alpha,) = arrays((1, 1, 3))
    (found,) = converted(Unit("PReLU", [(4, 5, 3)], keras1=True), [alpha])
    np.testing.assert_array_equal(found, np.broadcast_to(alpha, (4, 5, 3)))
