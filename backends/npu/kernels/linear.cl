// Products of matrices, convolutions, depthwise and transposed convolutions, channels last.
//
// Every sum has one accumulator and one order, whatever parts it is made in. Dimension 0 of the grid are output
// channels: what is loaded from the image does not depend on it, and what is loaded from the weights depends on nothing
// else, so that a product of a column and a row is all that a step costs.
// With BIAS there is an operand `bias` (BIASED) of one element an output channel, which sums begin with (FIRST).
// `resume`: whether to go on from acc.
// Kernels whose macros are missing are left out, so that any OpenCL compiler takes the file.

#pragma OPENCL FP_CONTRACT OFF

#include "window.cl"

#ifdef BIAS
#define BIASED __global const IN2 *bias,
#define FIRST(channel) bias[channel]
#else
#define BIASED
#define FIRST(channel) 0
#endif

// a [..., M, K] . b [..., K, N]: (bias + a0 b0) + a1 b1 + ...
// The grid: N; rows that share their matrix b; and the rest of the batch, a number of four digits, of which the inner
// three run to size1 ... size3. Digit i and rows step through a and b by a_i, b_i and a_row.
__kernel void matmul(
    __global const IN0 *a, __global const IN1 *b, BIASED __global const OUT0 *acc, __global OUT0 *y, int depth,
    int a_row, int size1, int size2, int size3, int a0, int a1, int a2, int a3, int b0, int b1, int b2, int b3,
    int resume)
{
    const size_t column = get_global_id(0), row = get_global_id(1), batch = get_global_id(2);
    const size_t columns = get_global_size(0), at = result_place();
    __global const IN0 *left = a + digits_place(batch, size1, size2, size3, a0, a1, a2, a3) + row * a_row;
    __global const IN1 *right = b + digits_place(batch, size1, size2, size3, b0, b1, b2, b3) + column;
    OUT0 total = FIRST(column);
    if (resume) {
        total = acc[at];
    }
    for (int k = 0; k < depth; k++) {
        total += *left * *right;
        left++;
        right += columns;
    }
    y[at] = total;
}

#ifdef STRIDE_H

// x [N, H, W, C] with zeros around it, w [taps_h, taps_w, C, M] -> [N, rows, columns, M]: bias and then the products
// by c, tap row, tap column. A product with a zero of the border counts: with an infinite weight it is NaN.
__kernel void conv(
    __global const IN0 *x, __global const IN1 *w, BIASED __global const OUT0 *acc, __global OUT0 *y, WINDOW, int resume)
{
    const size_t filter = get_global_id(0), filters = get_global_size(0), at = result_place();
    const int column = get_global_id(1), line = get_global_id(2);
    const int first_row = line % rows * STRIDE_H - top, first_column = column * STRIDE_W - left;
    ptrdiff_t corner = ((ptrdiff_t)(line / rows) * height + first_row) * width * channels + first_column * channels;
    const ptrdiff_t down = (ptrdiff_t)DILATION_H * width * channels, right = DILATION_W * channels;
    const size_t next_tap = channels * filters;
    const IN0 zero = 0;
    OUT0 total = FIRST(filter);
    if (resume) {
        total = acc[at];
    }
    for (int c = 0; c < channels; c++) {
        __global const IN1 *weight = w + c * filters + filter;
        for (int i = 0; i < taps_h; i++) {
            const bool row_inside = (uint)(first_row + i * DILATION_H) < (uint)height;
            ptrdiff_t tap = i * down + c;
            for (int j = 0; j < taps_w; j++) {
                const bool inside = row_inside && (uint)(first_column + j * DILATION_W) < (uint)width;
                total += (inside ? x[corner + tap] : zero) * *weight;
                tap += right;
                weight += next_tap;
            }
        }
    }
    y[at] = total;
}

// x [N, H, W, C] with zeros around it, w [taps_h, taps_w, 1, C * multiplier] -> [N, rows, columns, C * multiplier]:
// bias and then the products by tap row, tap column, those with the zeros included. Channel c * multiplier + m reads c.
__kernel void depthwise(
    __global const IN0 *x, __global const IN1 *w, BIASED __global const OUT0 *acc, __global OUT0 *y, WINDOW, int resume)
{
    const size_t filter = get_global_id(0), filters = get_global_size(0), at = result_place();
    const int column = get_global_id(1), line = get_global_id(2);
    const int first_row = line % rows * STRIDE_H - top, first_column = column * STRIDE_W - left;
    const size_t image = (size_t)(line / rows) * height;
    __global const IN0 *channel = x + filter / (filters / channels);
    __global const IN1 *weight = w + filter;
    OUT0 total = FIRST(filter);
    if (resume) {
        total = acc[at];
    }
    for (int i = 0; i < taps_h; i++) {
        const int row = first_row + i * DILATION_H;
        for (int j = 0; j < taps_w; j++) {
            total += pixel(channel, image, row, first_column + j * DILATION_W, height, width, channels, 0) * *weight;
            weight += filters;
        }
    }
    y[at] = total;
}

// x [N, H, W, C], w [taps_h, taps_w, C, M] -> y [N, rows, columns, M]: output o sums bias and then, by c, tap row, tap
// column k, the products of those inputs i for which i * stride + k * dilation = o + origin (top and left).
__kernel void conv_transpose(
    __global const IN0 *x, __global const IN1 *w, BIASED __global const OUT0 *acc, __global OUT0 *y, WINDOW, int resume)
{
    const size_t filter = get_global_id(0), filters = get_global_size(0), at = result_place();
    const int column = get_global_id(1), line = get_global_id(2);
    const int last_row = line % rows + top, last_column = column + left;
    const size_t image = (size_t)(line / rows) * height, next_tap = channels * filters;
    OUT0 total = FIRST(filter);
    if (resume) {
        total = acc[at];
    }
    for (int c = 0; c < channels; c++) {
        __global const IN1 *weight = w + c * filters + filter;
        for (int i = 0; i < taps_h; i++) {
            // What lies before the first input is a huge number without sign, and so is its quotient.
            const uint down = last_row - i * DILATION_H, r = down / STRIDE_H;
            const bool row_met = r * STRIDE_H == down && r < (uint)height;
            const size_t row = (image + r) * width;
            for (int j = 0; j < taps_w; j++) {
                const uint right = last_column - j * DILATION_W, q = right / STRIDE_W;
                if (row_met && q * STRIDE_W == right && q < (uint)width) {
                    total += x[(row + q) * channels + c] * *weight;
                }
                weight += next_tap;
            }
        }
    }
    y[at] = total;
}

#endif
