// Products of matrices, convolutions, depthwise and transposed convolutions, channels last.
//
// Every sum has one accumulator and one order, whatever parts it is made in. Dimension 0 of the grid are output
// channels: what is loaded from the image does not depend on it, and what is loaded from the weights depends on nothing
// else, so that a product of a column and a row is all that a step costs.
// With BIAS there is an operand `bias` of one element an output channel. `resume`: whether to go on from acc.
// Kernels whose macros are missing are left out, so that any OpenCL compiler takes the file.

#pragma OPENCL FP_CONTRACT OFF

// Where a number of four digits, of which the inner three run to n1, n2 and n3, leads by the steps of its digits.
size_t place(size_t number, int n1, int n2, int n3, int step0, int step1, int step2, int step3)
{
    const size_t digit3 = number % n3, rest = number / n3, digit2 = rest % n2, digit1 = rest / n2 % n1;
    return rest / n2 / n1 * step0 + digit1 * step1 + digit2 * step2 + digit3 * step3;
}

// a [..., M, K] . b [..., K, N]: (bias + a0 b0) + a1 b1 + ...
// The grid: N; rows that share their matrix b; and the rest of the batch, a number of four digits, of which the inner
// three run to size1 ... size3. Digit i and rows step through a and b by a_i, b_i and a_row.
__kernel void matmul(
    __global const IN0 *a, __global const IN1 *b,
#ifdef BIAS
    __global const IN2 *bias,
#endif
    __global const OUT0 *acc, __global OUT0 *y, int depth, int a_row, int size1, int size2, int size3,
    int a0, int a1, int a2, int a3, int b0, int b1, int b2, int b3, int resume)
{
    const size_t column = get_global_id(0), row = get_global_id(1), batch = get_global_id(2);
    const size_t columns = get_global_size(0);
    const size_t at = (batch * get_global_size(1) + row) * columns + column;
    __global const IN0 *left = a + place(batch, size1, size2, size3, a0, a1, a2, a3) + row * a_row;
    __global const IN1 *right = b + place(batch, size1, size2, size3, b0, b1, b2, b3) + column;
    OUT0 total = 0;
#ifdef BIAS
    total = bias[column];
#endif
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
    __global const IN0 *x, __global const IN1 *w,
#ifdef BIAS
    __global const IN2 *bias,
#endif
    __global const OUT0 *acc, __global OUT0 *y, int height, int width, int channels, int taps_h, int taps_w, int top,
    int left, int rows, int resume)
{
    const size_t filter = get_global_id(0), filters = get_global_size(0);
    const int column = get_global_id(1), line = get_global_id(2);
    const size_t at = (get_global_id(2) * get_global_size(1) + get_global_id(1)) * filters + filter;
    const int first_row = line % rows * STRIDE_H - top, first_column = column * STRIDE_W - left;
    ptrdiff_t corner = ((ptrdiff_t)(line / rows) * height + first_row) * width * channels + first_column * channels;
    const ptrdiff_t down = (ptrdiff_t)DILATION_H * width * channels, right = DILATION_W * channels;
    const size_t next_tap = channels * filters;
    const IN0 zero = 0;
    OUT0 total = 0;
#ifdef BIAS
    total = bias[filter];
#endif
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
    __global const IN0 *x, __global const IN1 *w,
#ifdef BIAS
    __global const IN2 *bias,
#endif
    __global const OUT0 *acc, __global OUT0 *y, int height, int width, int channels, int taps_h, int taps_w, int top,
    int left, int rows, int resume)
{
    const size_t filter = get_global_id(0), filters = get_global_size(0);
    const int column = get_global_id(1), line = get_global_id(2);
    const size_t at = (get_global_id(2) * get_global_size(1) + get_global_id(1)) * filters + filter;
    const int first_row = line % rows * STRIDE_H - top, first_column = column * STRIDE_W - left;
    const size_t image = (size_t)(line / rows) * height, channel = filter / (filters / channels);
    const bool filled = height > 0 && width > 0;
    const IN0 zero = 0;
    __global const IN1 *weight = w + filter;
    OUT0 total = 0;
#ifdef BIAS
    total = bias[filter];
#endif
    if (resume) {
        total = acc[at];
    }
    for (int i = 0; i < taps_h; i++) {
        const int r = first_row + i * DILATION_H;
        const bool row_inside = (uint)r < (uint)height;
        const size_t row = (image + clamp(r, 0, height - 1)) * width;
        for (int j = 0; j < taps_w; j++) {
            // The nearest pixel is loaded where there is none: cheaper than work items that do not load.
            const int c = first_column + j * DILATION_W;
            const bool inside = row_inside && (uint)c < (uint)width;
            const IN0 pixel = filled ? x[(row + clamp(c, 0, width - 1)) * channels + channel] : zero;
            total += (inside ? pixel : zero) * *weight;
            weight += filters;
        }
    }
    y[at] = total;
}

// x [N, H, W, C], w [taps_h, taps_w, C, M] -> y [N, rows, columns, M]: output o sums bias and then, by c, tap row, tap
// column k, the products of those inputs i for which i * stride + k * dilation = o + origin (top and left).
__kernel void conv_transpose(
    __global const IN0 *x, __global const IN1 *w,
#ifdef BIAS
    __global const IN2 *bias,
#endif
    __global const OUT0 *acc, __global OUT0 *y, int height, int width, int channels, int taps_h, int taps_w, int top,
    int left, int rows, int resume)
{
    const size_t filter = get_global_id(0), filters = get_global_size(0);
    const int column = get_global_id(1), line = get_global_id(2);
    const size_t at = (get_global_id(2) * get_global_size(1) + get_global_id(1)) * filters + filter;
    const int last_row = line % rows + top, last_column = column + left;
    const size_t image = (size_t)(line / rows) * height, next_tap = channels * filters;
    OUT0 total = 0;
#ifdef BIAS
    total = bias[filter];
#endif
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
