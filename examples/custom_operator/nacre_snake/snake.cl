// The Snake activation. FREQUENCY is a macro that the compiler sets, one compilation for each value.
#pragma OPENCL FP_CONTRACT OFF

__kernel void snake(__global const float *x, __global float *y) {
  size_t i = get_global_id(0);
  float wave = sin(FREQUENCY * x[i]);
  y[i] = x[i] + wave * wave / FREQUENCY;
}
