// Moves of elements of any type: repeating and turning round, padding, gathering.
// Kernels whose macros are missing are left out, so that any OpenCL compiler takes the file.

#pragma OPENCL FP_CONTRACT OFF

#include "grid.cl"

// Every element from a place of x that goes in even steps; x[first] is the first. The grid is all elements in six runs
// of axes, as runs_place has them.
__kernel void in_steps(
    __global const IN0 *x, __global OUT0 *y, int first, int size1, int size2, int size3, int step0, int step1,
    int step2, int step3, int step4, int step5)
{
    y[result_place()] = x[first + runs_place(size1, size2, size3, step0, step1, step2, step3, step4, step5)];
}

#ifdef SOURCE

// --- padding --------------------------------------------------------------------------------------------------------
// Which of `size` inputs an output takes that lies at i, counted from the first input. SOURCE is one of these.

ptrdiff_t edge(ptrdiff_t i, int size)
{
    const ptrdiff_t last = size - 1;
    return clamp(i, (ptrdiff_t)0, last);
}

// Mirrored at the first input, then at the last.
ptrdiff_t reflect(ptrdiff_t i, int size)
{
    const ptrdiff_t last = size - 1, ahead = i < 0 ? -i : i;
    return ahead > last ? 2 * last - ahead : ahead;
}

int outside(ptrdiff_t i, int size) { return i < 0 || i >= size; }

// A box of a padded tensor. The grid is its elements in runs of axes as above. Output 0 of run number i lies at shift_i,
// counted from the first of size_i inputs; x[first] would be input 0 of all, and inputs are step_i apart.
// With VALUE, that is what lies outside; `loaded` tells whether x has any elements.
__kernel void pad(
    __global const IN0 *x, __global OUT0 *y, int loaded, int first, int count1, int count2, int count3, int shift0,
    int shift1, int shift2, int shift3, int shift4, int shift5, int size0, int size1, int size2, int size3, int size4,
    int size5, int step0, int step1, int step2, int step3, int step4, int step5)
{
    const size_t id2 = get_global_id(2), rest = id2 / count3;
    const ptrdiff_t i0 = (ptrdiff_t)(rest / count2 / count1) + shift0;
    const ptrdiff_t i1 = (ptrdiff_t)(rest / count2 % count1) + shift1;
    const ptrdiff_t i2 = (ptrdiff_t)(rest % count2) + shift2;
    const ptrdiff_t i3 = (ptrdiff_t)(id2 % count3) + shift3;
    const ptrdiff_t i4 = (ptrdiff_t)get_global_id(1) + shift4;
    const ptrdiff_t i5 = (ptrdiff_t)get_global_id(0) + shift5;
    const size_t at = result_place();
    const ptrdiff_t outer = first + SOURCE(i0, size0) * step0 + SOURCE(i1, size1) * step1 + SOURCE(i2, size2) * step2
        + SOURCE(i3, size3) * step3;
    const ptrdiff_t source = outer + SOURCE(i4, size4) * step4 + SOURCE(i5, size5) * step5;
#ifdef VALUE
    const int around = outside(i0, size0) | outside(i1, size1) | outside(i2, size2) | outside(i3, size3);
    OUT0 found = VALUE;
    if (loaded) {
        found = x[source];
        found = around | outside(i4, size4) | outside(i5, size5) ? VALUE : found;
    }
    y[at] = found;
#else
    y[at] = x[source];
#endif
}

#endif
#ifdef IN1

// --- gathering ------------------------------------------------------------------------------------------------------
// data[o, indices[j], i] for indices that lie in this part of data's middle axis, which counts from `offset` and has
// `part` of all `size`; others keep what acc has. An index below 0 counts from the end of all. One that leaves all of it
// is not held back: work items of the first or of the last o then read where data has no element. The grid: i; j; o.
__kernel void gather(
    __global const IN0 *data, __global const IN1 *indices, __global const OUT0 *acc, __global OUT0 *y, int offset,
    int part, int size, int resume)
{
    const ptrdiff_t inner = get_global_size(0), id0 = get_global_id(0), id2 = get_global_id(2);
    const long index = indices[get_global_id(1)];
    const int wrong = index < -size || index >= size;
    const long near = clamp(index, (long)INT_MIN, (long)INT_MAX);
    const ptrdiff_t row = (near < 0 ? near + size : near) - offset;
    const int here = row >= 0 && row < part;
    const ptrdiff_t taken = here | wrong ? row : 0;
    const size_t at = result_place();
    OUT0 before = 0;
    if (resume) {
        before = acc[at];
    }
    const OUT0 found = data[id2 * part * inner + taken * inner + id0];
    y[at] = here ? found : before;
}

#endif
