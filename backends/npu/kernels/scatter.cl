// Gathering and scattering along an axis, with an index for each element.
// Kernels whose macros are missing are left out, so that any OpenCL compiler takes the file.

#pragma OPENCL FP_CONTRACT OFF

#include "grid.cl"

// Where an index leads in a part of an axis that counts from `offset` of `size`; one below 0 counts from the end. An
// index that leaves the axis leads to INT_MIN.
ptrdiff_t place_of(IN1 index, int offset, int size)
{
    const long wide = index;
    const int wrong = wide < -size || wide >= size;
    const long counted = wide < 0 ? wide + size : wide;
    return wrong ? INT_MIN : (ptrdiff_t)counted - offset;
}

#ifndef IN2

// For each element of y the one of data whose place along an axis the index says, where this `part` of the axis has it;
// others keep what acc has. An index that leaves all of the axis reads before data. The grid is all of y in six runs of
// axes, as runs_place has them; run number i steps through data by a_i, 0 along the axis, and through indices by b_i.
__kernel void gather_elements(
    __global const IN0 *data, __global const IN1 *indices, __global const OUT0 *acc, __global OUT0 *y, int offset,
    int part, int size, int step, int resume, int size1, int size2, int size3, int a0, int a1, int a2, int a3, int a4,
    int a5, int b0, int b1, int b2, int b3, int b4, int b5)
{
    const size_t at = result_place();
    const ptrdiff_t line = runs_place(size1, size2, size3, a0, a1, a2, a3, a4, a5);
    const ptrdiff_t spot = place_of(
        indices[runs_place(size1, size2, size3, b0, b1, b2, b3, b4, b5)], offset, size);
    const int here = spot >= 0 && spot < part;
    const ptrdiff_t taken = line + (here ? spot : 0) * step;
    OUT0 before = 0;
    if (resume) {
        before = acc[at];
    }
    const OUT0 found = data[spot == INT_MIN ? -1 : taken];
    y[at] = here ? found : before;
}

#else

OUT0 none(OUT0 old, IN2 update) { return update; }

OUT0 add(OUT0 old, IN2 update) { return old + update; }

OUT0 mul(OUT0 old, IN2 update) { return old * update; }

// A NaN wins; of equal ones (zeros of two signs) the update stays.
OUT0 smaller(OUT0 old, IN2 update) { return old < update || old != old ? old : update; }

OUT0 larger(OUT0 old, IN2 update) { return old > update || old != old ? old : update; }

// y is data, or acc when a part has been done, and then `count` updates, one after the other: COMBINE puts each to its
// place along the axis, of which y has the `part` from `offset` of all `size`. An index that leaves the axis writes
// before y. The grid is the lines along the axis in three runs of the other axes; run number i steps by row_i, by
// index_i and by update_i, and the lines themselves by `step`, index_step and update_step.
__kernel void scatter_elements(
    __global const IN0 *data, __global const IN1 *indices, __global const IN2 *updates, __global const OUT0 *acc,
    __global OUT0 *y, int offset, int part, int size, int count, int step, int index_step, int update_step, int row0,
    int row1, int row2, int index0, int index1, int index2, int update0, int update1, int update2, int resume)
{
    const size_t id0 = get_global_id(0), id1 = get_global_id(1), id2 = get_global_id(2);
    const ptrdiff_t line = id2 * row2 + id1 * row1 + id0 * row0;
    __global OUT0 *result = y + line;
    if (resume) {
        __global const OUT0 *old = acc + line;
        for (int i = 0; i < part; i++) {
            result[i * step] = old[i * step];
        }
    } else {
        __global const IN0 *old = data + line;
        for (int i = 0; i < part; i++) {
            result[i * step] = old[i * step];
        }
    }
    __global const IN1 *index = indices + (id2 * index2 + id1 * index1 + id0 * index0);
    __global const IN2 *update = updates + (id2 * update2 + id1 * update1 + id0 * update0);
    for (int i = 0; i < count; i++) {
        const ptrdiff_t spot = place_of(*index, offset, size);
        if (spot >= 0 && spot < part) {
            result[spot * step] = COMBINE(result[spot * step], *update);
        }
        if (spot == INT_MIN) {
            y[-1] = 0;
        }
        index += index_step;
        update += update_step;
    }
}

#endif
