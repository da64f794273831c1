// Functions of elements: of one tensor, of two and three that repeat along axes, and batch normalisation.
//
// FUNCTION: what `unary` and `binary` apply, a built-in of OpenCL C or one of the functions here. Parameters of an
// operation are macros of their names: ALPHA, BETA, LOW, HIGH, APPROXIMATE, EPSILON.
// Kernels and functions whose macros are missing are left out, so that any OpenCL compiler takes the file.

#pragma OPENCL FP_CONTRACT OFF

#include "grid.cl"

#ifdef FUNCTION

// --- functions of one element ---------------------------------------------------------------------------------------

OUT0 same(IN0 x) { return x; }

OUT0 negative(IN0 x) { return -x; }

OUT0 inverse_root(float x) { return 1.0f / sqrt(x); }

// The larger one; a NaN wins, and of equal ones (zeros of two signs) the second.
IN0 larger(IN0 a, IN0 b) { return a > b || a != a ? a : b; }

// The smaller one, likewise.
IN0 smaller(IN0 a, IN0 b) { return a < b || a != a ? a : b; }

OUT0 relu(IN0 x) { return larger(x, 0); }

OUT0 sigmoid(float x) { return 1.0f / (1.0f + exp(-x)); }

// A NaN need not win here: the product has it.
OUT0 hard_swish(float x) { return x * fmax(0.0f, fmin(1.0f, x / 6.0f + 0.5f)); }

// 0.797884561 is sqrt(2 / pi), 0.707106781 is sqrt(1 / 2).
OUT0 gelu(float x)
{
#ifdef APPROXIMATE
    return 0.5f * x * (1.0f + tanh(0.797884561f * (x + 0.044715f * (x * x * x))));
#else
    return 0.5f * x * (1.0f + erf(x * 0.707106781f));
#endif
}

#ifdef LOW
OUT0 clamped(IN0 x) { return smaller(larger(x, LOW), HIGH); }
#endif

#ifdef ALPHA
OUT0 leaky_relu(float x) { return x >= 0.0f ? x : x * ALPHA; }

OUT0 elu(float x) { return x >= 0.0f ? x : expm1(x) * ALPHA; }
#endif

#ifdef BETA
OUT0 hard_sigmoid(IN0 x) { return larger(0, smaller(1, x * ALPHA + BETA)); }
#endif

// --- casts ----------------------------------------------------------------------------------------------------------
// Integers wrap around. A float is truncated to an int, which wraps around to narrower types, or to a long. NaN and
// what does not fit become the smallest int or long, as x86's cvttss2si has it and so numpy there.

OUT0 nonzero(IN0 x) { return x != 0; }

OUT0 through_int(float x) { return x >= -2147483648.0f && x < 2147483648.0f ? (int)x : INT_MIN; }

OUT0 through_long(float x)
{
    return x >= -9223372036854775808.0f && x < 9223372036854775808.0f ? (long)x : LONG_MIN;
}

// --- functions of two elements --------------------------------------------------------------------------------------

OUT0 sum(IN0 a, IN0 b) { return a + b; }

OUT0 difference(IN0 a, IN0 b) { return a - b; }

OUT0 product(IN0 a, IN0 b) { return a * b; }

OUT0 quotient(IN0 a, IN0 b) { return a / b; }

// Integers, truncated. Over -1 they are negated: the smallest one's quotient, which wraps around, is undefined in C.
OUT0 whole_quotient(IN0 a, IN0 b)
{
    const IN0 result = a / (b == -1 ? 1 : b);
    return b == -1 ? -result : result;
}

// Integers, with a's sign as the quotient is truncated; over 0 it is 0, as numpy has it. Nothing is left over -1.
OUT0 whole_remainder(IN0 a, IN0 b)
{
    const long divisor = b, dividend = a;
    return dividend % (divisor == 0 || divisor == -1 ? 1 : divisor);
}

// Floats, exactly, by long division: x and y are whole numbers `left` and `divisor` times powers of two, and 39 bits of
// the quotient are made at a time.
OUT0 float_remainder(float x, float y)
{
    const uint a = as_uint(fabs(x)), b = as_uint(fabs(y));
    const int exponent_a = max((int)(a >> 23), 1), exponent_b = max((int)(b >> 23), 1);
    const ulong divisor = b == 0 ? 1 : (b & 0x7fffff) | (b < 0x800000 ? 0 : 0x800000);
    ulong left = ((a & 0x7fffff) | (a < 0x800000 ? 0 : 0x800000)) % divisor;
    int more = exponent_a - exponent_b;
    while (more > 0) {
        const int bits = min(more, 39);
        left = (left << bits) % divisor;
        more -= bits;
    }
    // 2^(exponent_b - 150) as a product of two powers, neither of which is subnormal.
    const int half_b = exponent_b / 2;
    const float low = as_float((half_b + 52) << 23), high = as_float((exponent_b - half_b + 52) << 23);
    const float rest = as_float(as_uint((float)left * low * high) | (as_uint(x) & 0x80000000));
    const bool none = a >= 0x7f800000 || b > 0x7f800000 || b == 0;
    return none ? NAN : a < b ? x : rest;
}

// Integers by repeated squaring, which wraps around. Powers below 0 are truncated: they leave 1 and -1 alone.
OUT0 whole_power(IN0 a, IN0 b)
{
    const long exponent = b;
    ulong square = (long)a, result = 1, left = exponent < 0 ? exponent & 1 : exponent;
    if (exponent < 0 && a != 1 && a != -1) {
        square = 0;
        left = 1;
    }
    while (left) {
        result *= left & 1 ? square : 1;
        square *= square;
        left >>= 1;
    }
    return result;
}

OUT0 bits_and(IN0 a, IN0 b) { return (long)a & (long)b; }

OUT0 bits_or(IN0 a, IN0 b) { return (long)a | (long)b; }

OUT0 bits_xor(IN0 a, IN0 b) { return (long)a ^ (long)b; }

// Shifts by amounts that are negative or too large leave zeros, or the sign. A long has it in all higher bits.
OUT0 bits_left(IN0 a, IN0 b)
{
    const long amount = b;
    return amount < 0 || amount > 63 ? 0 : (ulong)(long)a << amount;
}

OUT0 bits_right(IN0 a, IN0 b)
{
    const long amount = b;
    return (long)a >> (amount < 0 || amount > 63 ? 63 : amount);
}

OUT0 prelu(IN0 a, IN0 b) { return a >= 0 ? a : a * b; }

OUT0 eq(IN0 a, IN0 b) { return a == b; }

OUT0 ne(IN0 a, IN0 b) { return a != b; }

OUT0 lt(IN0 a, IN0 b) { return a < b; }

OUT0 le(IN0 a, IN0 b) { return a <= b; }

OUT0 gt(IN0 a, IN0 b) { return a > b; }

OUT0 ge(IN0 a, IN0 b) { return a >= b; }

#ifndef IN1

// The grid: all elements.
__kernel void unary(__global const IN0 *x, __global OUT0 *y)
{
    y[get_global_id(0)] = FUNCTION(x[get_global_id(0)]);
}

#endif
#endif
#ifdef IN1

// Operands that repeat along axes. The grid is all elements in six runs of axes, as runs_place has them.
#ifdef FUNCTION

__kernel void binary(
    __global const IN0 *a, __global const IN1 *b, __global OUT0 *y, int size1, int size2, int size3, int a0, int a1,
    int a2, int a3, int a4, int a5, int b0, int b1, int b2, int b3, int b4, int b5)
{
    const size_t at_a = runs_place(size1, size2, size3, a0, a1, a2, a3, a4, a5);
    const size_t at_b = runs_place(size1, size2, size3, b0, b1, b2, b3, b4, b5);
    y[result_place()] = FUNCTION(a[at_a], b[at_b]);
}

#endif
#ifdef IN2
#ifndef EPSILON

// b where the condition a holds, c elsewhere.
__kernel void choose(
    __global const IN0 *a, __global const IN1 *b, __global const IN2 *c, __global OUT0 *y, int size1, int size2,
    int size3, int a0, int a1, int a2, int a3, int a4, int a5, int b0, int b1, int b2, int b3, int b4, int b5, int c0,
    int c1, int c2, int c3, int c4, int c5)
{
    const size_t at_a = runs_place(size1, size2, size3, a0, a1, a2, a3, a4, a5);
    const size_t at_b = runs_place(size1, size2, size3, b0, b1, b2, b3, b4, b5);
    const size_t at_c = runs_place(size1, size2, size3, c0, c1, c2, c3, c4, c5);
    const IN1 chosen = b[at_b];
    const IN2 other = c[at_c];
    y[result_place()] = a[at_a] ? chosen : other;
}

#else

// (x - mean) / sqrt(variance + EPSILON) * scale + bias, in this order, over the middle axis of x [outer, size, inner].
// The grid: inner; size; outer.
__kernel void batch_norm(
    __global const IN0 *x, __global const IN1 *scale, __global const IN2 *bias, __global const IN3 *mean,
    __global const IN4 *variance, __global OUT0 *y)
{
    const size_t channel = get_global_id(1), at = result_place();
    y[at] = (x[at] - mean[channel]) / sqrt(variance[channel] + EPSILON) * scale[channel] + bias[channel];
}

#endif
#endif
#endif
