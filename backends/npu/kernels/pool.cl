// Pools over windows of an image [N, H, W, C], and the normalisation of responses by neighbouring channels.
//
// A pool's image and its window are what this part has of them. `resume`: whether to go on from acc.
// Kernels whose macros are missing are left out, so that any OpenCL compiler takes the file.

#pragma OPENCL FP_CONTRACT OFF

#include "window.cl"

#ifdef LOWEST

// The largest of the window, or of integers. LOWEST: what no other value is below, which the border counts as.
// With FLOAT a NaN wins, and a largest zero is +0, so that the order in which parts are taken does not show.
__kernel void max_pool(
    __global const IN0 *x, __global const OUT0 *acc, __global OUT0 *y, WINDOW, int resume)
{
    const int column = get_global_id(1), line = get_global_id(2);
    const int first_row = line % rows * STRIDE_H - top, first_column = column * STRIDE_W - left;
    const size_t image = (size_t)(line / rows) * height;
    const size_t at = result_place();
    __global const IN0 *channel = x + get_global_id(0);
    const OUT0 lowest = LOWEST;
    OUT0 largest = lowest;
    if (resume) {
        largest = acc[at];
    }
#ifdef FLOAT
    OUT0 wrong = largest;
#endif
    for (int i = 0; i < taps_h; i++) {
        const int row = first_row + i * DILATION_H;
        for (int j = 0; j < taps_w; j++) {
            const int c = first_column + j * DILATION_W;
            const OUT0 next = pixel(channel, image, row, c, height, width, channels, lowest);
#ifdef FLOAT
            largest = fmax(largest, next);
            wrong = next != next ? next : wrong;
#else
            largest = max(largest, next);
#endif
        }
    }
#ifdef FLOAT
    largest = wrong != wrong ? wrong : largest + 0.0f;
#endif
    y[at] = largest;
}

#endif
#ifdef TAPS_H

// How many of `taps` positions of a window, `dilation` apart from `first` on, lie in [low, high).
int counted(int first, int taps, int dilation, int low, int high)
{
    const int begin = max(0, (low - first + dilation - 1) / dilation);
    const int end = min(taps, max(0, (high - first + dilation - 1) / dilation));
    return max(0, end - begin);
}

// The sum over this part of the window, rows first; the `last` part divides it by the positions of the whole window
// that count: those in [LOW_H, HIGH_H) x [LOW_W, HIGH_W) of the padded image. `row0`, `column0`: the first output.
__kernel void avg_pool(
    __global const IN0 *x, __global const OUT0 *acc, __global OUT0 *y, WINDOW, int row0, int column0, int last,
    int resume)
{
    const int column = get_global_id(1), line = get_global_id(2);
    const int first_row = line % rows * STRIDE_H - top, first_column = column * STRIDE_W - left;
    const size_t image = (size_t)(line / rows) * height;
    const size_t at = result_place();
    __global const IN0 *channel = x + get_global_id(0);
    OUT0 total = 0;
    if (resume) {
        total = acc[at];
    }
    for (int i = 0; i < taps_h; i++) {
        const int row = first_row + i * DILATION_H;
        for (int j = 0; j < taps_w; j++) {
            total += pixel(channel, image, row, first_column + j * DILATION_W, height, width, channels, 0);
        }
    }
    if (last) {
        const int high = counted((row0 + line % rows) * STRIDE_H, TAPS_H, DILATION_H, LOW_H, HIGH_H);
        const int wide = counted((column0 + column) * STRIDE_W, TAPS_W, DILATION_W, LOW_W, HIGH_W);
        total /= max(1, high * wide);
    }
    y[at] = total;
}

#endif
#ifdef BETA

// The sum of squares of a part of the neighbours [pixels, channels], of which the first lies `before` in front of the
// first channel's window of `taps`; the `last` part makes x / (BIAS + SCALE * sum)^BETA of it.
// The grid: channels; pixels.
__kernel void lrn(
    __global const IN0 *near, __global const IN1 *x, __global const OUT0 *acc, __global OUT0 *y, int neighbours,
    int taps, int before, int last, int resume)
{
    const size_t channel = get_global_id(0), pixel = get_global_id(1);
    const size_t at = pixel * get_global_size(0) + channel;
    __global const IN0 *row = near + pixel * neighbours;
    const int first = (int)channel - before;
    OUT0 total = 0;
    if (resume) {
        total = acc[at];
    }
    for (int i = 0; i < taps; i++) {
        if ((uint)(first + i) < (uint)neighbours) {
            const OUT0 value = row[first + i];
            total += value * value;
        }
    }
    if (last) {
        total = x[at] / pow(BIAS + SCALE * total, BETA);
    }
    y[at] = total;
}

#endif
