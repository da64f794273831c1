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
