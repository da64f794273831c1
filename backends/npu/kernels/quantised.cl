// Elementwise operators and row normalisation of quantised integers, equal to TFLite's reference kernels bit for bit.
//
// Parameters of quantisation are macros: zero points, and for each rescaling a Q31 multiplier and a power of two.
// Kernels whose macros are missing are left out, so that any OpenCL compiler takes the file.

#pragma OPENCL FP_CONTRACT OFF

#include "fixed_point.cl"
#include "grid.cl"

// --- broadcast operands ------------------------------------------------------------------------------------

// Where an operand has this work item's element. The grid: runs of axes 0 and 1; runs 2 (of `inner` steps) and 3.
size_t place(int inner, int step0, int step1, int step2, int step3)
{
    const int outer = get_global_id(2);
    return get_global_id(0) * step0 + get_global_id(1) * step1 + (size_t)(outer % inner) * step2
           + (size_t)(outer / inner) * step3;
}

#ifdef LOW

// A rescaled value on its zero point, clamped to what the result stores.
OUT0 stored(long scaled, int zero)
{
    return (OUT0)clamp(scaled + zero, (long)LOW, (long)HIGH);
}

#endif
#ifdef NEGATIVE_MULTIPLIER

// x where it is not negative, x * slope elsewhere. The slope's sign is applied after rounding.
OUT0 rectified(int x, int slope)
{
    const int positive = requantise(x, POSITIVE_MULTIPLIER, POSITIVE_SHIFT);
    const int negative = requantise((int)((long)x * slope), NEGATIVE_MULTIPLIER, NEGATIVE_SHIFT);
    return stored(x >= 0 ? positive : SIGN * negative, RESULT_ZERO);
}

// One slope, which is part of the multiplier. The grid: elements.
__kernel void leaky_relu(__global const IN0 *x, __global OUT0 *y)
{
    const size_t at = get_global_id(0);
    y[at] = rectified(x[at] - INPUT_ZERO, 1);
}

#ifdef IN1

// A slope an element, or fewer, broadcast.
__kernel void prelu(
    __global const IN0 *x, __global const IN1 *slope, __global OUT0 *y, int inner, int x0, int x1, int x2, int x3,
    int slope0, int slope1, int slope2, int slope3)
{
    const int factor = slope[place(inner, slope0, slope1, slope2, slope3)] - SLOPE_ZERO;
    y[result_place()] = rectified(x[place(inner, x0, x1, x2, x3)] - INPUT_ZERO, factor);
}

#endif
#endif
#ifdef LEFT_SHIFT

// (a - b)^2, both brought to a common scale before they meet; the square wraps around.
__kernel void squared_difference(
    __global const IN0 *a, __global const IN1 *b, __global OUT0 *y, int inner, int a0, int a1, int a2, int a3, int b0,
    int b1, int b2, int b3)
{
    const int left = (a[place(inner, a0, a1, a2, a3)] - A_ZERO) << LEFT_SHIFT;
    const int right = (b[place(inner, b0, b1, b2, b3)] - B_ZERO) << LEFT_SHIFT;
    const uint difference = requantise(left, A_MULTIPLIER, A_SHIFT) - requantise(right, B_MULTIPLIER, B_SHIFT);
    const int square = (int)(difference * difference);
    y[result_place()] = stored(requantise(square, MULTIPLIER, SHIFT), RESULT_ZERO);
}

#endif

// --- rows of length one ------------------------------------------------------------------------------------

#ifdef STEPS

// x / sqrt(sum of x^2) of each row, in steps of 1/128. STEPS and STEP_BITS: those that come before the factor, which
// TFLite does for uint8, and with its shift. The grid: rows.
__kernel void l2_normalize(__global const IN0 *x, __global OUT0 *y, int size)
{
    const size_t first = get_global_id(0) * size;
    __global const IN0 *value = x + first;
    long total = 0;
    for (int i = 0; i < size; i++) {
        const int centred = *value - INPUT_ZERO;
        total += centred * (long)centred;
        value++;
    }
    const int2 factor = inverse_square_root(total);
    const int multiplier = factor.s0, shift = factor.s1 + STEP_BITS;
    __global const IN0 *source = x + first;
    __global OUT0 *result = y + first;
    for (int i = 0; i < size; i++) {
        *result = stored(requantise((*source - INPUT_ZERO) * STEPS, multiplier, shift), MIDDLE);
        source++;
        result++;
    }
}

#endif
