// gemmlowp's fixed-point arithmetic, as TFLite's reference kernels use it; other files include this one.

#pragma OPENCL FP_CONTRACT OFF

// a * b / 2^31, ties up; saturated for the one product that does not fit.
int high_multiply(int a, int b)
{
    return (int)min(((long)a * b + (1L << 30)) >> 31, (long)INT_MAX);
}

// x / 2^exponent, ties away from zero.
int divide_by_power(int x, int exponent)
{
    const long half_unit = (1L << exponent) >> 1;
    return (int)(((long)x + half_unit + (exponent > 0 ? x >> 31 : 0)) >> exponent);
}

// x * multiplier * 2^(shift - 31), rounded twice; a left shift wraps around.
int requantise(int x, int multiplier, int shift)
{
    return divide_by_power(high_multiply(x << max(shift, 0), multiplier), max(-shift, 0));
}

// x * 2^bits, saturated.
int raise(int x, int bits)
{
    return (int)clamp((long)x << bits, (long)INT_MIN, (long)INT_MAX);
}

// How many bits a positive integer has.
int bit_length(uint x)
{
    int bits = 0;
    for (int step = 16; step > 0; step /= 2) {
        bits += x >> (bits + step) ? step : 0;
    }
    return bits + 1;
}

// 1 / sqrt(x) of an integer as a Q31 multiplier and a power of two; 0 counts as 1. Five steps of Newton and Raphson
// in Q3.28, on a mantissa between 1/2 and 2.
int2 inverse_square_root(long x)
{
    int right = 11;
    long large = max(x, 2L);
    while (large >= 1L << 29) {
        large /= 4;
        right++;
    }
    const int pairs = (31 - bit_length(large)) / 2 - 1;
    right -= pairs;
    const int halved = (((int)large << (2 * pairs) >> 1) + 1) >> 1;
    int root = 1 << 28;
    for (int i = 0; i < 5; i++) {
        const int cube = raise(high_multiply(high_multiply(root, root), root), 6);
        root = raise(high_multiply((1 << 28) + (1 << 27), root) - high_multiply(halved, cube), 3);
    }
    const int root_of_half = 1518500250;  // in Q31
    const int multiplier = high_multiply(root, root_of_half) << max(-right, 0);
    return (int2)(x <= 1 ? INT_MAX : multiplier, x <= 1 ? 0 : -max(right, 0));
}
