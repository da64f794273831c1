// Reductions along any axes, and where along an axis a value stands.
//
// The grid is what is kept of the axes, in three runs; what is reduced is three nested loops in row-major order. A run
// steps through x by the `keep` and `step` of its number. Sums have one accumulator and one order, whatever parts they
// are made in. `resume`: whether to go on from acc.
// Kernels whose macros are missing are left out, so that any OpenCL compiler takes the file.

#pragma OPENCL FP_CONTRACT OFF

#include "grid.cl"

// What kernels along a reduction are told of it.
#define WALK int keep0, int keep1, int keep2, int size0, int size1, int size2, int step0, int step1, int step2

#ifdef JOIN

// acc + x0 + x1 + ..., or with another operator JOIN; integers wrap around. START: what the first part goes on from.
// With CENTRED there is a mean of each sum, and squares of the differences from it are summed. With COUNT the `last`
// part divides by it.
__kernel void reduce(
    __global const IN0 *x,
#ifdef CENTRED
    __global const IN1 *mean,
#endif
    __global const OUT0 *acc, __global OUT0 *y, WALK, int last, int resume)
{
    const size_t at = result_place();
    __global const IN0 *kept = x + (get_global_id(2) * keep2 + get_global_id(1) * keep1 + get_global_id(0) * keep0);
#ifdef CENTRED
    const OUT0 centre = mean[at];
#endif
    OUT0 total = START;
    if (resume) {
        total = acc[at];
    }
    for (int i = 0; i < size2; i++) {
        for (int j = 0; j < size1; j++) {
            __global const IN0 *value = kept + (i * step2 + j * step1);
            for (int k = 0; k < size0; k++) {
#ifdef CENTRED
                const OUT0 centred = *value - centre;
                total = total JOIN centred * centred;
#else
                total = total JOIN *value;
#endif
                value += step0;
            }
        }
    }
#ifdef COUNT
    if (last) {
        total /= COUNT;
    }
#endif
    y[at] = total;
}

#endif
#ifdef PICK

// The largest or the smallest: PICK is fmax, fmin, max or min, START what it leaves any value alone.
// With FLOAT a NaN wins, and a zero is +0, so that the order in which parts are taken does not show.
__kernel void extremum(
    __global const IN0 *x, __global const OUT0 *acc, __global OUT0 *y, WALK, int resume)
{
    const size_t at = result_place();
    __global const IN0 *kept = x + (get_global_id(2) * keep2 + get_global_id(1) * keep1 + get_global_id(0) * keep0);
    OUT0 found = START;
    if (resume) {
        found = acc[at];
    }
#ifdef FLOAT
    OUT0 wrong = found;
#endif
    for (int i = 0; i < size2; i++) {
        for (int j = 0; j < size1; j++) {
            __global const IN0 *value = kept + (i * step2 + j * step1);
            for (int k = 0; k < size0; k++) {
                const OUT0 next = *value;
                found = PICK(found, next);
#ifdef FLOAT
                wrong = next != next ? next : wrong;
#endif
                value += step0;
            }
        }
    }
#ifdef FLOAT
    found = wrong != wrong ? wrong : found + 0.0f;
#endif
    y[at] = found;
}

#endif

// The index of the first largest value along the middle axis of x [outer, size, inner]; the last one's with LAST.
// With FLOAT a NaN is larger than any number. The grid: inner; outer.
__kernel void argmax(__global const IN0 *x, __global OUT0 *y, int size)
{
    const size_t inner = get_global_size(0);
    __global const IN0 *value = x + (get_global_id(1) * inner * size + get_global_id(0));
    IN0 largest = *value;
    OUT0 found = 0;
    for (int i = 1; i < size; i++) {
        value += inner;
        const IN0 next = *value;
#ifdef LAST
        bool larger = next >= largest;
#else
        bool larger = next > largest;
#endif
#ifdef FLOAT
#ifdef LAST
        larger = larger || next != next;
#else
        larger = larger || (next != next && largest == largest);
#endif
#endif
        largest = larger ? next : largest;
        found = larger ? i : found;
    }
    y[get_global_id(1) * inner + get_global_id(0)] = found;
}

#ifdef IN1

// Where along the middle axis of x [outer, size, inner], counted from `offset`, the wanted value stands first, or last
// with LAST; -1 before a part has it. With FLOAT, NaN is NaN. The grid: inner; outer.
__kernel void index_of(
    __global const IN0 *x, __global const IN1 *wanted, __global const OUT0 *acc, __global OUT0 *y, int size, int offset,
    int resume)
{
    const size_t inner = get_global_size(0), at = get_global_id(1) * inner + get_global_id(0);
    const IN1 value = wanted[at];
    const ptrdiff_t step = inner;
    __global const IN0 *next = x + (get_global_id(1) * inner * size + get_global_id(0));
    OUT0 before = -1;
    if (resume) {
        before = acc[at];
    }
    OUT0 found = -1;
#ifdef LAST
    for (int i = 0; i < size; i++) {
#else
    next += step * (size - 1);
    for (int i = size - 1; i >= 0; i--) {
#endif
        bool same = *next == value;
#ifdef FLOAT
        same = same || (*next != *next && value != value);
#endif
        found = same ? offset + i : found;
#ifdef LAST
        next += step;
#else
        next -= step;
#endif
    }
#ifdef LAST
    y[at] = found < 0 ? before : found;
#else
    y[at] = before < 0 ? found : before;
#endif
}

#endif
