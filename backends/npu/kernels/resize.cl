// Resampling of one to three spatial axes in ONNX's ways: nearest, linear, cubic; and TFLite's bilinear one of uint8.
//
// A tensor is [N, axis 0, axis 1, axis 2, C]; absent axes come first and have one element. SIZE, NEW and SCALE with an
// axis's number describe the whole layer; `first` is where a tile's results begin, and `origin` where what it has of
// the input does. The grid: channels; results along axis 2; those along axis 1 and axis 0 of all images.
// The order of operations decides which of two pixels is nearest: it is ONNX Runtime's.
// Kernels whose macros are missing are left out, so that any OpenCL compiler takes the file.

#pragma OPENCL FP_CONTRACT OFF

#include "grid.cl"

// --- coordinates: where on an axis of `size` the result number x of `out` lies -----------------------------

float asymmetric(float x, float size, float out, float scale)
{
    return x / scale;
}

float align_corners(float x, float size, float out, float scale)
{
    return out > 1.0f ? x * (size - 1.0f) / (out - 1.0f) : 0.0f;
}

float half_pixel(float x, float size, float out, float scale)
{
    return (x + 0.5f) / scale - 0.5f;
}

float pytorch_half_pixel(float x, float size, float out, float scale)
{
    return out == 1.0f ? 0.0f : half_pixel(x, size, out, scale);
}

#ifdef TABLE0

// Those that need more than float32 are looked up.
__constant float table0[NEW0] = TABLE0;
__constant float table1[NEW1] = TABLE1;
__constant float table2[NEW2] = TABLE2;
#define AT0 table0[x0]
#define AT1 table1[x1]
#define AT2 table2[x2]

#else

#define AT0 COORDINATE(x0, SIZE0, NEW0, SCALE0)
#define AT1 COORDINATE(x1, SIZE1, NEW1, SCALE1)
#define AT2 COORDINATE(x2, SIZE2, NEW2, SCALE2)

#endif

// --- the nearest pixel -------------------------------------------------------------------------------------

// This close to a half is a half.
#define TIE 1e-6f

float round_prefer_floor(float at)
{
    const float below = floor(at);
    return fabs(at - (below + 0.5f)) <= TIE ? below : floor(at + 0.5f);
}

float round_prefer_ceil(float at)
{
    const float below = floor(at);
    return fabs(at - (below + 0.5f)) <= TIE ? below + 1.0f : floor(at + 0.5f);
}

#ifdef NEAREST

// A move of elements of any type. NEAREST: floor, ceil, or one of the functions above.
__kernel void resize(
    __global const IN0 *x, __global OUT0 *y, int size0, int size1, int size2, int out0, int out1, int first0,
    int first1, int first2, int origin0, int origin1, int origin2)
{
    const int line = get_global_id(2);
    const int x0 = first0 + line / out1 % out0, x1 = first1 + line % out1, x2 = first2 + (int)get_global_id(1);
    const int row0 = clamp((int)NEAREST(AT0), 0, SIZE0 - 1) - origin0;
    const int row1 = clamp((int)NEAREST(AT1), 0, SIZE1 - 1) - origin1;
    const int row2 = clamp((int)NEAREST(AT2), 0, SIZE2 - 1) - origin2;
    const size_t image = line / out1 / out0, channels = get_global_size(0);
    const size_t place = ((image * size0 + row0) * size1 + row1) * size2 * channels;
    y[result_place()] = x[place + row2 * channels + get_global_id(0)];
}

#endif

// --- sums of neighbours: pixels around a coordinate, clamped to the axis, and their weights -----------------
#ifdef CUBIC

#define PIXELS int4
#define WEIGHTS float4

// R. G. Keys, Cubic convolution interpolation for digital image processing, 1981: up to a distance of 1, and of 2.
float near(float d)
{
    return (NEAR1 * d - NEAR0) * d * d + 1.0f;
}

float far(float d)
{
    return ((FAR3 * d - FAR2) * d + FAR1) * d - FAR0;
}

// 1 for a pixel of the axis.
float existing(int pixel, int size)
{
    return pixel >= 0 && pixel < size ? 1.0f : 0.0f;
}

int4 pixels(float at, int size)
{
    const int base = (int)floor(at);
    return clamp((int4)(base - 1, base, base + 1, base + 2), 0, size - 1);
}

float4 weights(float at, int size)
{
    const float t = at - floor(at);
    float4 weight = (float4)(far(t + 1.0f), near(t), near(1.0f - t), far(2.0f - t));
#ifdef EXCLUDE_OUTSIDE
    const int base = (int)floor(at);
    weight.s0 *= existing(base - 1, size);
    weight.s1 *= existing(base, size);
    weight.s2 *= existing(base + 1, size);
    weight.s3 *= existing(base + 2, size);
    weight /= weight.s0 + weight.s1 + weight.s2 + weight.s3;
#endif
    return weight;
}

#else

#define PIXELS int2
#define WEIGHTS float2

int2 pixels(float at, int size)
{
    const int base = (int)floor(clamp(at, 0.0f, size - 1.0f));
    return (int2)(base, min(base + 1, size - 1));
}

float2 weights(float at, int size)
{
    const float inside = clamp(at, 0.0f, size - 1.0f), fraction = inside - floor(inside);
    return (float2)(1.0f - fraction, fraction);
}

#endif
#ifdef INTERPOLATES

// One axis after the other, the first one innermost. An axis that stays as it is (COPY) is not weighed.
float sum0(__global const IN0 *x, PIXELS i0, WEIGHTS w0)
{
#ifdef COPY0
    return x[i0.s0];
#else
    float total = 0.0f;
    total += x[i0.s0] * w0.s0;
    total += x[i0.s1] * w0.s1;
#ifdef CUBIC
    total += x[i0.s2] * w0.s2;
    total += x[i0.s3] * w0.s3;
#endif
    return total;
#endif
}

float sum1(__global const IN0 *x, PIXELS i0, WEIGHTS w0, PIXELS i1, WEIGHTS w1)
{
#ifdef COPY1
    return sum0(x + i1.s0, i0, w0);
#else
    float total = 0.0f;
    total += sum0(x + i1.s0, i0, w0) * w1.s0;
    total += sum0(x + i1.s1, i0, w0) * w1.s1;
#ifdef CUBIC
    total += sum0(x + i1.s2, i0, w0) * w1.s2;
    total += sum0(x + i1.s3, i0, w0) * w1.s3;
#endif
    return total;
#endif
}

float sum2(__global const IN0 *x, PIXELS i0, WEIGHTS w0, PIXELS i1, WEIGHTS w1, PIXELS i2, WEIGHTS w2)
{
#ifdef COPY2
    return sum1(x + i2.s0, i0, w0, i1, w1);
#else
    float total = 0.0f;
    total += sum1(x + i2.s0, i0, w0, i1, w1) * w2.s0;
    total += sum1(x + i2.s1, i0, w0, i1, w1) * w2.s1;
#ifdef CUBIC
    total += sum1(x + i2.s2, i0, w0, i1, w1) * w2.s2;
    total += sum1(x + i2.s3, i0, w0, i1, w1) * w2.s3;
#endif
    return total;
#endif
}

// Weighed sums, of floats.
__kernel void resize(
    __global const IN0 *x, __global OUT0 *y, int size0, int size1, int size2, int out0, int out1, int first0,
    int first1, int first2, int origin0, int origin1, int origin2)
{
    const int line = get_global_id(2), channels = get_global_size(0);
    const int x0 = first0 + line / out1 % out0, x1 = first1 + line % out1, x2 = first2 + (int)get_global_id(1);
    PIXELS i0 = x0, i1 = x1, i2 = x2;
    WEIGHTS w0 = 1.0f, w1 = 1.0f, w2 = 1.0f;
#ifndef COPY0
    i0 = pixels(AT0, SIZE0);
    w0 = weights(AT0, SIZE0);
#endif
#ifndef COPY1
    i1 = pixels(AT1, SIZE1);
    w1 = weights(AT1, SIZE1);
#endif
#ifndef COPY2
    i2 = pixels(AT2, SIZE2);
    w2 = weights(AT2, SIZE2);
#endif
    const int image = line / out1 / out0, step1 = size2 * channels, step0 = size1 * step1;
    __global const IN0 *source = x + ((size_t)image * size0 * step0 + get_global_id(0));
    y[result_place()] = sum2(
        source, (i0 - origin0) * step0, w0, (i1 - origin1) * step1, w1, (i2 - origin2) * channels, w2);
}

#endif

// --- TFLite's RESIZE_BILINEAR of uint8 ---------------------------------------------------------------------
#ifdef CENTRE

// Where the result number x lies. CENTRE: how far from its edge a pixel's value is.
float bilinear_place(int x, float scale)
{
    return (x + CENTRE) * scale - CENTRE;
}

// Stored integers [N, H, W, C] in floats; the sum's order is TFLite's. The grid: channels; columns; rows of all images.
__kernel void bilinear(
    __global const IN0 *x, __global OUT0 *y, int height, int width, int rows, int first0, int first1, int origin0,
    int origin1)
{
    const int line = get_global_id(2);
    const float row = bilinear_place(first0 + line % rows, SCALE0);
    const float column = bilinear_place(first1 + (int)get_global_id(1), SCALE1);
    const int above = max((int)floor(row), 0), below = min((int)ceil(row), SIZE0 - 1);
    const int before = max((int)floor(column), 0), behind = min((int)ceil(column), SIZE1 - 1);
    const float down = row - above, across = column - before, up = 1.0f - down, back = 1.0f - across;
    const size_t channels = get_global_size(0), image = (size_t)(line / rows) * height;
    const size_t top = (image + (above - origin0)) * width * channels;
    const size_t bottom = (image + (below - origin0)) * width * channels;
    const size_t left = (before - origin1) * channels + get_global_id(0);
    const size_t right = (behind - origin1) * channels + get_global_id(0);
    float total = x[top + left] * up * back;
    total += x[bottom + left] * down * back;
    total += x[top + right] * up * across;
    total += x[bottom + right] * down * across;
    y[result_place()] = (OUT0)(total + 0.5f);
}

#endif
