// Softmax of rows of quantised integers, equal to TFLite's reference kernels bit for bit: in one kernel, and its sum
// and quotient as kernels of their own, which give the same bits.
//
// On 8 bits (FIXED_POINT is defined) exponentials are gemmlowp's fixed-point ones; on int16 they are interpolated in
// tables of 513 samples. A multiplier and a shift bring differences to the scale of either.
// Kernels whose macros are missing are left out, so that any OpenCL compiler takes the file.

#pragma OPENCL FP_CONTRACT OFF

#include "fixed_point.cl"

// How differences become arguments: what every function on the way to an exponential is told and tells on. `smallest` is
// the least difference that 8 bits tell from 0.
#define SCALE int multiplier, int shift, int smallest
#define SAME_SCALE multiplier, shift, smallest

#ifdef FIXED_POINT

// --- 8 bits ------------------------------------------------------------------------------------------------

// e^a in Q0.31 of a in [-1/4, 0), also Q0.31: four terms of Taylor's series around -1/8.
int exponential_near_zero(int a)
{
    const int exponential_of_minus_eighth = 1895147668, third = 715827883;
    const int x = a + (1 << 28);
    const int x2 = high_multiply(x, x), x3 = high_multiply(x2, x), x4 = high_multiply(x2, x2);
    const int higher = divide_by_power(high_multiply(divide_by_power(x4, 2) + x3, third) + x2, 1);
    return exponential_of_minus_eighth + high_multiply(exponential_of_minus_eighth, x + higher);
}

// e^argument in Q0.31 of an argument <= 0 in Q5.26. A rest in [-1/4, 0) goes through the series; each bit of the
// multiple of 1/4 that is left multiplies by e^(-2^bit), for bits from -2 to 4.
int exponential_of(int argument)
{
    const int quarter = 1 << 24;
    const int rest = (argument & (quarter - 1)) - quarter, multiple = rest - argument;
    int power = exponential_near_zero(rest << 5);
    power = multiple & 1 << 24 ? high_multiply(power, 1672461947) : power;
    power = multiple & 1 << 25 ? high_multiply(power, 1302514674) : power;
    power = multiple & 1 << 26 ? high_multiply(power, 790015084) : power;
    power = multiple & 1 << 27 ? high_multiply(power, 290630308) : power;
    power = multiple & 1 << 28 ? high_multiply(power, 39332535) : power;
    power = multiple & 1 << 29 ? high_multiply(power, 720401) : power;
    power = multiple & 1 << 30 ? high_multiply(power, 242) : power;
    return argument == 0 ? INT_MAX : power;
}

// e^difference in Q0.31; 0 beyond the range of Q5.26.
int exponential_of_difference(int difference, SCALE)
{
    const bool inside = difference >= smallest;
    const int argument = high_multiply((inside ? difference : 0) << shift, multiplier);
    return inside ? exponential_of(argument) : 0;
}

// Up to so many elements of all rows take each exponential as it comes; more look them up in a table of all there are.
#define FEW 128

// Make the exponentials of the differences 0, -1 ... -255, each once a group, where there are many to look up.
void fill(__local int *table, int elements, SCALE)
{
    if (elements > FEW) {
        const int items = get_local_size(0) * get_local_size(1);
        for (int i = get_local_id(1) * get_local_size(0) + get_local_id(0); i < 256; i += items) {
            table[i] = exponential_of_difference(-i, SAME_SCALE);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}

// The table of a kernel over so many elements.
#define TABLE(elements) __local int table[256]; fill(table, elements, SAME_SCALE)

// e^difference in Q0.31.
int exponential(int difference, __local const int *table, int elements, SCALE)
{
    return elements > FEW ? table[-difference] : exponential_of_difference(difference, SAME_SCALE);
}

// What an exponential adds to the sum, which is in Q12.19.
int summand(int power)
{
    return divide_by_power(power, 12);
}

// 1 / total in Q0.31, but for the total's power of two: three steps of Newton and Raphson in Q2.29, which begin with
// 48/17 - 32/17 * halved.
int reciprocal(int total, int bits)
{
    const int halved = (int)(((long)(uint)total << (32 - bits)) >> 1);
    int x = 1515870810 + high_multiply(halved, -1010580540);
    for (int i = 0; i < 3; i++) {
        x += raise(high_multiply(x, (1 << 29) - high_multiply(halved, x)), 2);
    }
    return raise(x, 1);
}

// An exponential over the total, which has that many bits. DROPPED: 31 less the bits of a result.
OUT0 quotient(int power, int inverse, int bits)
{
    const int ratio = divide_by_power(high_multiply(power, inverse), bits - 20 + DROPPED);
    return (OUT0)clamp((long)ratio + LOW, (long)LOW, (long)HIGH);
}

#endif
#ifdef EXPONENTIALS

// --- int16 -------------------------------------------------------------------------------------------------

__constant short exponentials[513] = EXPONENTIALS;
__constant short reciprocals[513] = RECIPROCALS;

// A table's function at x of the range of int16: 9 bits choose two samples, whose difference wraps; 7 weigh them.
int interpolated(int x, __constant const short *table)
{
    const int at = 256 + (x >> 7);
    const short below = table[at], slope = (short)(table[at + 1] - below);
    return below + ((slope * (x & 127) + 64) >> 7);
}

// The table of a kernel over however many elements.
#define TABLE(elements) __constant const short *table = exponentials

// e^difference in Q0.15. The table's range is [-10, 0].
int exponential(int difference, __constant const short *table, int elements, SCALE)
{
    const int scaled = requantise(difference, multiplier, shift);
    return interpolated((int)clamp((long)scaled + SHRT_MAX, (long)SHRT_MIN, (long)SHRT_MAX), table);
}

// What an exponential adds to the sum, which is in Q16.15.
int summand(int power)
{
    return power;
}

// 1 / (1 + a) in Q0.15 for the total 2^(bits - 1) * (1 + a), whose a is in [0, 1).
int reciprocal(int total, int bits)
{
    const int mantissa = (((uint)total << (31 - bits)) + (1u << 13)) >> 14;
    return interpolated(clamp(mantissa - (1 << 16) + SHRT_MIN, SHRT_MIN, SHRT_MAX), reciprocals);
}

// An exponential over the total, which has that many bits.
OUT0 quotient(int power, int inverse, int bits)
{
    return (OUT0)clamp((power * inverse + (1 << (bits - 2))) >> (bits - 1), 0, SHRT_MAX);
}

#endif

// --- kernels -----------------------------------------------------------------------------------------------
#ifdef OUT0

// A row is shared out among `shares` work items where rows are few: SHARES of all rows together, which meet here.
// Without shares each work item has a row of its own.
#define SHARES 64

// The largest of what the work items of a row found, each its `found`.
int largest_of_all(int found, __local int *meeting)
{
    const int shares = get_global_size(0), first = get_global_id(1) * shares;
    int largest = found;
    if (shares > 1) {
        meeting[first + get_global_id(0)] = found;
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int i = 0; i < shares; i++) {
            largest = max(largest, meeting[first + i]);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    return largest;
}

// The sum of what they found. Sums of integers wrap around in whatever order.
int sum_of_all(int found, __local int *meeting)
{
    const int shares = get_global_size(0), first = get_global_id(1) * shares;
    int total = found;
    if (shares > 1) {
        meeting[first + get_global_id(0)] = found;
        barrier(CLK_LOCAL_MEM_FENCE);
        total = 0;
        for (int i = 0; i < shares; i++) {
            total += meeting[first + i];
        }
    }
    return total;
}

// The grid: shares; rows of `size`.
__kernel void softmax(__global const IN0 *x, __global OUT0 *y, int size, SCALE)
{
    __local int meeting[SHARES];
    const int elements = size * get_global_size(1);
    TABLE(elements);
    const int share = get_global_id(0), shares = get_global_size(0);
    const size_t first = get_global_id(1) * size;
    int largest = x[first];
    for (int i = share; i < size; i += shares) {
        largest = max(largest, (int)x[first + i]);
    }
    largest = largest_of_all(largest, meeting);
    int total = 0;
    for (int i = share; i < size; i += shares) {
        total += summand(exponential(x[first + i] - largest, table, elements, SAME_SCALE));
    }
    total = sum_of_all(total, meeting);
    const int bits = bit_length(total), inverse = reciprocal(total, bits);
    for (int i = share; i < size; i += shares) {
        y[first + i] = quotient(exponential(x[first + i] - largest, table, elements, SAME_SCALE), inverse, bits);
    }
}

#ifdef IN1

// acc + the sum of e^(x - maximum). The grid: shares; rows of `size`. `resume`: whether to go on from acc.
__kernel void softmax_sum(
    __global const IN0 *x, __global const IN1 *maximum, __global const int *acc, __global int *y, int size, int resume,
    SCALE)
{
    __local int meeting[SHARES];
    const int elements = size * get_global_size(1);
    TABLE(elements);
    const int share = get_global_id(0), shares = get_global_size(0);
    const size_t row = get_global_id(1), first = row * size;
    const int largest = maximum[row];
    int total = 0;
    for (int i = share; i < size; i += shares) {
        total += summand(exponential(x[first + i] - largest, table, elements, SAME_SCALE));
    }
    total = sum_of_all(total, meeting);
    if (share == 0) {
        if (resume) {
            total += acc[row];
        }
        y[row] = total;
    }
}

#endif
#ifdef IN2

// e^(x - maximum) / total. The grid: along rows; rows.
__kernel void softmax_output(
    __global const IN0 *x, __global const IN1 *maximum, __global const int *sums, __global OUT0 *y, SCALE)
{
    const int elements = get_global_size(0) * get_global_size(1);
    TABLE(elements);
    const size_t row = get_global_id(1), at = row * get_global_size(0) + get_global_id(0);
    const int total = sums[row], bits = bit_length(total);
    y[at] = quotient(exponential(x[at] - maximum[row], table, elements, SAME_SCALE), reciprocal(total, bits), bits);
}

#endif
#endif
