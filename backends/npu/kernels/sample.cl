// Values of an image between its pixels, at coordinates that another tensor holds.
//
// TAPS: how many neighbours count along an axis, 1 (NEAREST), 2 (linear) or 4 (CUBIC). Outside lie ZEROS, the image
// mirrored with REFLECTION, else its border. ALIGNED: -1 and 1 are the outer pixels' centres.
// Kernels whose macros are missing are left out, so that any OpenCL compiler takes the file.

#pragma OPENCL FP_CONTRACT OFF

#ifdef TAPS

// Where the image begins, and where it ends.
#ifdef ALIGNED
#define LOW 0.0f
float high_end(int size) { return (float)(size - 1); }
#else
#define LOW (-0.5f)
float high_end(int size) { return (float)size - 0.5f; }
#endif

// Mirrored at both ends until it lies between them; 0 where they are one point.
float reflected(float x, int size)
{
    const float high = high_end(size), width = high - LOW;
    const float beyond = fmax(LOW - x, x - high), turns = floor(beyond / width), rest = beyond - turns * width;
    const int odd = turns - 2.0f * floor(turns / 2.0f) != 0.0f;
    const int from_low = (x < LOW) != odd;
    const float back = from_low ? LOW + rest : high - rest;
    const float inside = beyond > 0.0f ? back : x;
    return width > 0.0f ? inside : 0.0f;
}

// A coordinate as a position in pixels, brought back inside; with ZEROS only to where all its neighbours lie outside,
// and CUBIC at the border not at all.
float position_of(float x, int size)
{
    const float last = (float)(size - 1);
#ifdef ALIGNED
    const float exact = (x + 1.0f) / 2.0f * last;
#else
    const float exact = ((x + 1.0f) * (float)size - 1.0f) / 2.0f;
#endif
#ifdef NEAREST
    const float position = rint(exact);
#else
    const float position = exact;
#endif
#ifdef ZEROS
    return fmin(fmax(position, -4.0f), last + 4.0f);
#else
#ifdef REFLECTION
    return reflected(position, size);
#else
#ifdef CUBIC
    return position;
#else
    return fmin(fmax(position, 0.0f), last);
#endif
#endif
#endif
}

// The pixel of neighbour `tap`, counted from the first one; it may lie outside.
float neighbour(float first, int tap, int size)
{
#ifdef REFLECTION
    return reflected(first + (float)tap, size);
#else
    return first + (float)tap;
#endif
}

// Cubic convolution's weights of a pixel up to 1 away, and from 1 to 2 away.
float near_weight(float t) { return (1.25f * t - 2.25f) * t * t + 1.0f; }

float far_weight(float t) { return ((-0.75f * t + 3.75f) * t - 6.0f) * t + 3.0f; }

// The weight of neighbour `tap` at a distance t behind the pixel in front.
float weight(int tap, float t)
{
#ifdef CUBIC
    float found = 0.0f;
    if (tap == 0) {
        found = far_weight(t + 1.0f);
    } else if (tap == 1) {
        found = near_weight(t);
    } else if (tap == 2) {
        found = near_weight(1.0f - t);
    } else {
        found = far_weight(2.0f - t);
    }
    return found;
#else
    return tap ? t : 1.0f - t;
#endif
}

// Neighbours in a row are summed by their weights from 0 on, then the rows. ifm [N, height, width, C], grid [..., 2] of
// (x, y). The grid of work items: C; columns; rows of all images, of which one has `rows`.
__kernel void grid_sample(
    __global const IN0 *ifm, __global const IN1 *grid, __global OUT0 *ofm, int height, int width, int rows)
{
    const size_t channels = get_global_size(0), columns = get_global_size(1);
    const size_t at = get_global_id(2) * columns + get_global_id(1);
    __global const IN0 *image = ifm + (get_global_id(2) / rows * height * width * channels + get_global_id(0));
    const float x = position_of(grid[at * 2], width), y = position_of(grid[at * 2 + 1], height);
    const float left = floor(x), top = floor(y), right_by = x - left, down_by = y - top;
#ifdef CUBIC
    const float first_x = left - 1.0f, first_y = top - 1.0f;
#else
    const float first_x = left, first_y = top;
#endif
    const float last_x = (float)(width - 1), last_y = (float)(height - 1);
    float total = 0.0f;
    for (int i = 0; i < TAPS; i++) {
        const float row = neighbour(first_y, i, height), near_y = fmin(fmax(row, 0.0f), last_y);
        const int line = (int)near_y * width;
        float sum = 0.0f;
        for (int j = 0; j < TAPS; j++) {
            const float column = neighbour(first_x, j, width), near_x = fmin(fmax(column, 0.0f), last_x);
            const float value = image[(line + (int)near_x) * channels];
#ifdef ZEROS
            const float counted = near_x == column && near_y == row ? value : 0.0f;
#else
            const float counted = value;
#endif
#ifdef NEAREST
            sum = counted;
#else
            sum += weight(j, right_by) * counted;
#endif
        }
#ifdef NEAREST
        total = sum;
#else
        total += weight(i, down_by) * sum;
#endif
    }
    ofm[at * channels + get_global_id(0)] = total;
}

#endif
