// Softmax along the middle axis of x [outer, size, inner]: in one kernel, and its sum and quotient as kernels of their
// own, which give the same bits.
// Kernels whose macros are missing are left out, so that any OpenCL compiler takes the file.

#pragma OPENCL FP_CONTRACT OFF

// e^(x - max) / sum of e^(x - max), summed in index order. The grid: inner; outer.
__kernel void softmax(__global const IN0 *x, __global OUT0 *y, int size)
{
    const size_t inner = get_global_size(0), first = get_global_id(1) * inner * size + get_global_id(0);
    __global const IN0 *value = x + first;
    // A NaN need not win here: it makes the sum NaN.
    IN0 largest = -INFINITY;
    for (int i = 0; i < size; i++) {
        largest = fmax(largest, *value);
        value += inner;
    }
    __global const IN0 *source = x + first;
    __global OUT0 *result = y + first;
    OUT0 total = 0.0f;
    for (int i = 0; i < size; i++) {
        const OUT0 power = exp(*source - largest);
        total += power;
        *result = power;
        source += inner;
        result += inner;
    }
    __global OUT0 *quotient = y + first;
    for (int i = 0; i < size; i++) {
        *quotient = *quotient / total;
        quotient += inner;
    }
}

#ifdef IN1

// acc + the sum of e^(x - maximum). The grid: inner; outer. `resume`: whether to go on from acc.
__kernel void softmax_sum(
    __global const IN0 *x, __global const IN1 *maximum, __global const OUT0 *acc, __global OUT0 *y, int size,
    int resume)
{
    const size_t inner = get_global_size(0), at = get_global_id(1) * inner + get_global_id(0);
    __global const IN0 *value = x + (get_global_id(1) * inner * size + get_global_id(0));
    const IN1 largest = maximum[at];
    OUT0 total = 0.0f;
    if (resume) {
        total = acc[at];
    }
    for (int i = 0; i < size; i++) {
        total += exp(*value - largest);
        value += inner;
    }
    y[at] = total;
}

#endif
#ifdef IN2

// e^(x - maximum) / total; both are [outer, 1, inner]. The grid: inner; size; outer.
__kernel void softmax_output(
    __global const IN0 *x, __global const IN1 *maximum, __global const IN2 *total, __global OUT0 *y)
{
    const size_t inner = get_global_size(0), row = get_global_id(2) * inner + get_global_id(0);
    const size_t at = (get_global_id(2) * get_global_size(1) + get_global_id(1)) * inner + get_global_id(0);
    y[at] = exp(x[at] - maximum[row]) / total[row];
}

#endif
