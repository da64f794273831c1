// Normalisation of rows: in one kernel, and as the last of several passes, which give the same bits.
//
// Both compute (x - mean) / sqrt(variance + EPSILON) * scale + bias in this order. BIAS: whether there is one.
// Kernels whose macros are missing are left out, so that any OpenCL compiler takes the file.

#pragma OPENCL FP_CONTRACT OFF

#include "grid.cl"

// Each row by itself; its mean and its variance are sums in index order, divided by the number of its elements. The
// grid is all rows, in three runs; a row is three nested loops over its scale and bias, which may repeat. Run and loop
// number i step through them by row_scale_i, row_bias_i, and scale_i, bias_i.
__kernel void layer_norm(
    __global const IN0 *x, __global const IN1 *scale,
#ifdef BIAS
    __global const IN2 *bias,
#endif
    __global OUT0 *y, int count, int size0, int size1, int size2, int row_scale0, int row_scale1, int row_scale2,
    int row_bias0, int row_bias1, int row_bias2, int scale0, int scale1, int scale2, int bias0, int bias1, int bias2)
{
    const size_t id0 = get_global_id(0), id1 = get_global_id(1), id2 = get_global_id(2);
    const size_t first = result_place() * count;
    __global const IN0 *value = x + first;
    OUT0 total = 0.0f;
    for (int i = 0; i < count; i++) {
        total += *value;
        value++;
    }
    const OUT0 mean = total / (OUT0)count;
    __global const IN0 *again = x + first;
    OUT0 squares = 0.0f;
    for (int i = 0; i < count; i++) {
        const OUT0 centred = *again - mean;
        squares += centred * centred;
        again++;
    }
    const OUT0 deviation = sqrt(squares / (OUT0)count + EPSILON);
    __global const IN1 *scales = scale + (id2 * row_scale2 + id1 * row_scale1 + id0 * row_scale0);
#ifdef BIAS
    __global const IN2 *biases = bias + (id2 * row_bias2 + id1 * row_bias1 + id0 * row_bias0);
#endif
    __global const IN0 *source = x + first;
    __global OUT0 *result = y + first;
    for (int i = 0; i < size2; i++) {
        for (int j = 0; j < size1; j++) {
            for (int k = 0; k < size0; k++) {
                OUT0 normalised = (*source - mean) / deviation * scales[i * scale2 + j * scale1 + k * scale0];
#ifdef BIAS
                normalised += biases[i * bias2 + j * bias1 + k * bias0];
#endif
                *result = normalised;
                source++;
                result++;
            }
        }
    }
}

#ifdef IN3

// One element with its row's mean and variance. The grid is all elements in six runs of axes, as runs_place has them;
// run number i steps through mean and variance by row_i, through scale and bias by scale_i and bias_i.
__kernel void normalise(
    __global const IN0 *x, __global const IN1 *mean, __global const IN2 *variance, __global const IN3 *scale,
#ifdef BIAS
    __global const IN4 *bias,
#endif
    __global OUT0 *y, int size1, int size2, int size3, int row0, int row1, int row2, int row3, int row4, int row5,
    int scale0, int scale1, int scale2, int scale3, int scale4, int scale5, int bias0, int bias1, int bias2, int bias3,
    int bias4, int bias5)
{
    const size_t at = result_place(), row = runs_place(size1, size2, size3, row0, row1, row2, row3, row4, row5);
    const size_t s = runs_place(size1, size2, size3, scale0, scale1, scale2, scale3, scale4, scale5);
    const OUT0 deviation = sqrt(variance[row] + EPSILON);
    OUT0 normalised = (x[at] - mean[row]) / deviation * scale[s];
#ifdef BIAS
    normalised += bias[runs_place(size1, size2, size3, bias0, bias1, bias2, bias3, bias4, bias5)];
#endif
    y[at] = normalised;
}

#endif
