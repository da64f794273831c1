// Pools over windows of an image [N, H, W, C], and the normalisation of responses by neighbouring channels.
//
// The grid of a pool: channels; columns; rows of all images. Windows begin at stride * o - pad (`top`, `left`) of what
// this part has of the image and of the window. `resume`: whether to go on from acc.
// Kernels whose macros are missing are left out, so that any OpenCL compiler takes the file.

#pragma OPENCL FP_CONTRACT OFF

#ifdef LOWEST

// The largest of the window, or of integers. LOWEST: what no other value is below, which the border counts as.
// With FLOAT a NaN wins, and a largest zero is +0, so that the order in which parts are taken does not show.
__kernel void max_pool(
    __global const IN0 *x, __global const OUT0 *acc, __global OUT0 *y, int height, int width, int channels,
    int taps_h, int taps_w, int top, int left, int rows, int resume)
{
    const size_t channel = get_global_id(0);
    const int column = get_global_id(1), line = get_global_id(2);
    const size_t at = (get_global_id(2) * get_global_size(1) + get_global_id(1)) * channels + channel;
    const int first_row = line % rows * STRIDE_H - top, first_column = column * STRIDE_W - left;
    const size_t image = (size_t)(line / rows) * height;
    const bool filled = height > 0 && width > 0;
    const OUT0 lowest = LOWEST;
    OUT0 largest = lowest;
    if (resume) {
        largest = acc[at];
    }
#ifdef FLOAT
    OUT0 wrong = largest;
#endif
    for (int i = 0; i < taps_h; i++) {
        const int r = first_row + i * DILATION_H;
        const bool row_inside = (uint)r < (uint)height;
        const size_t row = (image + clamp(r, 0, height - 1)) * width;
        for (int j = 0; j < taps_w; j++) {
            // The nearest pixel is loaded where there is none: cheaper than work items that do not load.
            const int c = first_column + j * DILATION_W;
            const bool inside = row_inside && (uint)c < (uint)width;
            const IN0 near = filled ? x[(row + clamp(c, 0, width - 1)) * channels + channel] : lowest;
            const IN0 pixel = inside ? near : lowest;
#ifdef FLOAT
            largest = fmax(largest, pixel);
            wrong = pixel != pixel ? pixel : wrong;
#else
            largest = max(largest, pixel);
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
    __global const IN0 *x, __global const OUT0 *acc, __global OUT0 *y, int height, int width, int channels,
    int taps_h, int taps_w, int top, int left, int rows, int row0, int column0, int last, int resume)
{
    const size_t channel = get_global_id(0);
    const int column = get_global_id(1), line = get_global_id(2);
    const size_t at = (get_global_id(2) * get_global_size(1) + get_global_id(1)) * channels + channel;
    const int first_row = line % rows * STRIDE_H - top, first_column = column * STRIDE_W - left;
    const size_t image = (size_t)(line / rows) * height;
    const bool filled = height > 0 && width > 0;
    const IN0 zero = 0;
    OUT0 total = 0;
    if (resume) {
        total = acc[at];
    }
    for (int i = 0; i < taps_h; i++) {
        const int r = first_row + i * DILATION_H;
        const bool row_inside = (uint)r < (uint)height;
        const size_t row = (image + clamp(r, 0, height - 1)) * width;
        for (int j = 0; j < taps_w; j++) {
            const int c = first_column + j * DILATION_W;
            const bool inside = row_inside && (uint)c < (uint)width;
            const IN0 near = filled ? x[(row + clamp(c, 0, width - 1)) * channels + channel] : zero;
            total += inside ? near : zero;
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
