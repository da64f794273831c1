// Logistic function and hyperbolic tangent of int16, equal to TFLite's reference kernels bit for bit.
//
// SAMPLES: 65536 / (1 + e^(-i / 24)) for i = 0 ... 255, between which is interpolated. The argument, in steps of
// 1 / (3 * 4096), is x * MULTIPLIER / 2^SHIFT.
// Kernels whose macros are missing are left out, so that any OpenCL compiler takes the file.

#pragma OPENCL FP_CONTRACT OFF

#ifdef SAMPLES

__constant ushort samples[256] = SAMPLES;

// x in steps of the argument; HALF rounds it.
int argument(int x)
{
    return (int)(((long)x * MULTIPLIER + HALF) >> SHIFT);
}

// The samples' function of a magnitude, raised by `bits`: those of the magnitude that weigh two neighbours.
int interpolated(int magnitude, int bits, int beyond)
{
    const int place = magnitude >> bits, inside = min(place, 254);
    const int below = samples[inside], slope = samples[inside + 1] - below;
    const int between = (below << bits) + (magnitude & ((1 << bits) - 1)) * slope;
    return place >= 255 ? beyond : between;
}

// 1 / (1 + e^-x) in 1/32768. The grid: elements.
__kernel void logistic(__global const short *x, __global short *y)
{
    const size_t at = get_global_id(0);
    const int value = argument(x[at]), curve = interpolated((int)abs(value), 9, SHRT_MAX << 10);
    y[at] = (short)((value >= 0 ? curve + (1 << 9) : (1 << 25) - curve + (1 << 9) - 1) >> 10);
}

// tanh in 1/32768, which is 2 / (1 + e^-2x) - 1. The grid: elements.
__kernel void tanh16(__global const short *x, __global short *y)
{
    const size_t at = get_global_id(0);
    const int value = argument(x[at]), curve = interpolated((int)abs(value), 8, USHRT_MAX << 8);
    y[at] = (short)((value >= 0 ? curve - (1 << 23) + (1 << 7) : (1 << 23) - curve + (1 << 7) - 1) >> 8);
}

#endif
