// Along an axis, element by element: cumulative sums and products, the top k.
//
// x is [outer, size, inner] where a kernel has an axis in the middle.
// Kernels whose macros are missing are left out, so that any OpenCL compiler takes the file.

#pragma OPENCL FP_CONTRACT OFF

#ifdef JOIN

// START joined with x0, x1, ... from left to right, up to each element; with EXCLUSIVE, up to the one before it; with
// REVERSE from the last element on. JOIN: + or *. With IN1 x is a later part of the axis, and `before` what the
// last element of the part before it has come to, of which `left` was left out with EXCLUSIVE. The grid: inner; outer.
__kernel void scan(
    __global const IN0 *x,
#ifdef IN1
    __global const IN1 *before, __global const IN2 *left,
#endif
    __global OUT0 *y, int size)
{
    const ptrdiff_t inner = get_global_size(0);
#ifdef REVERSE
    const ptrdiff_t step = -inner;
    const ptrdiff_t first = (get_global_id(1) * size + size - 1) * inner + get_global_id(0);
#else
    const ptrdiff_t step = inner;
    const ptrdiff_t first = get_global_id(1) * size * inner + get_global_id(0);
#endif
    __global const IN0 *value = x + first;
    __global OUT0 *result = y + first;
    OUT0 total = START;
#ifdef IN1
    const size_t at = get_global_id(1) * inner + get_global_id(0);
#ifdef EXCLUSIVE
    total = before[at] JOIN left[at];
#else
    total = before[at];
#endif
#endif
    for (int i = 0; i < size; i++) {
#ifdef EXCLUSIVE
        *result = total;
        total = total JOIN *value;
#else
        total = total JOIN *value;
        *result = total;
#endif
        value += step;
        result += step;
    }
}

#endif
#ifdef OUT1

// A number in the order of the values it stands for: both zeros are one, and NaN is above all.
#ifdef FLOAT
int order(float x)
{
    const int bits = as_int(x);
    const int key = bits < 0 ? INT_MIN - bits : bits;
    return x != x ? INT_MAX : key;
}
#else
IN0 order(IN0 x) { return x; }
#endif

// The k largest of each row, or with SMALLEST the k smallest, and where they are. Each element counts those that come
// before it, and puts itself there; of equal ones the first comes first. The grid: inner; size; outer.
__kernel void topk(__global const IN0 *x, __global OUT0 *values, __global OUT1 *indices, int k)
{
    const size_t inner = get_global_size(0);
    const int size = get_global_size(1), place = get_global_id(1);
    __global const IN0 *row = x + (get_global_id(2) * size * inner + get_global_id(0));
    const IN0 value = row[place * inner];
#ifdef FLOAT
    const int own = order(value);
#else
    const IN0 own = value;
#endif
    int rank = 0;
    for (int i = 0; i < size; i++) {
#ifdef SMALLEST
        const int less = order(*row) < own;
#else
        const int less = order(*row) > own;
#endif
        const int same = order(*row) == own;
        rank += less | (same & i < place);
        row += inner;
    }
    if (rank < k) {
        const size_t at = (get_global_id(2) * k + rank) * inner + get_global_id(0);
        values[at] = value;
        indices[at] = place;
    }
}

#endif
