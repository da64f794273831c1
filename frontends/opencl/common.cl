// Functions of OpenCL C 1.2 (6.12.2, 6.12.4) that are exact or take a few operations: rounding, remainders,
// parts of a float.

#pragma OPENCL FP_CONTRACT OFF

// Halfway cases go away from zero.
float round(float x) {
  const float a = fabs(x), whole = trunc(a);
  return copysign(whole + (a - whole >= 0.5f ? 1.0f : 0.0f), x);
}

float sign(float x) { return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x == x ? x : 0.0f; }

float mix(float x, float y, float a) { return x + (y - x) * a; }

float step(float edge, float x) { return x < edge ? 0.0f : 1.0f; }

float smoothstep(float edge0, float edge1, float x) {
  const float t = clamp((x - edge0) / (edge1 - edge0), 0.0f, 1.0f);
  return t * t * (3.0f - 2.0f * t);
}

float degrees(float radians) { return radians * 57.2957795f; }

float radians(float degrees) { return degrees * 0.0174532925f; }

float fdim(float x, float y) { return x > y ? x - y : x <= y ? 0.0f : NAN; }

float maxmag(float x, float y) { return fabs(x) > fabs(y) ? x : fabs(y) > fabs(x) ? y : fmax(x, y); }

float minmag(float x, float y) { return fabs(x) < fabs(y) ? x : fabs(y) < fabs(x) ? y : fmin(x, y); }

float _reciprocal(float x) { return 1.0f / x; }

float _quotient(float x, float y) { return x / y; }

// Scaled by a power of two that keeps the squares within range.
float hypot(float x, float y) {
  const float a = fmax(fabs(x), fabs(y));
  const float down = a > 1.152921505e18f ? 8.470329473e-22f : a < 8.673617380e-19f ? 1.180591621e21f : 1.0f;
  const float up = a > 1.152921505e18f ? 1.180591621e21f : a < 8.673617380e-19f ? 8.470329473e-22f : 1.0f;
  const float u = x * down, v = y * down;
  return a == INFINITY ? a : sqrt(u * u + v * v) * up;
}

// x · 2^k in three steps, of which only the last can round.
float ldexp(float x, int k) {
  float y = x;
  int n = clamp(k, -400, 400);
  y = n > 127 ? y * 1.701411835e38f : n < -126 ? y * 1.972152263e-31f : y;
  n = n > 127 ? n - 127 : n < -126 ? n + 102 : n;
  y = n > 127 ? y * 1.701411835e38f : n < -126 ? y * 1.972152263e-31f : y;
  n = n > 127 ? n - 127 : n < -126 ? n + 102 : n;
  return y * as_float((clamp(n, -126, 127) + 127) << 23);
}

float logb(float x) {
  const float a = fabs(x);
  const bool tiny = a < 1.17549435e-38f;
  const int e = (as_int(tiny ? a * 33554432.0f : a) >> 23) - (tiny ? 152 : 127);
  return a == 0.0f ? -INFINITY : a < INFINITY ? (float)e : a;
}

int ilogb(float x) {
  const float e = logb(x);
  return x == 0.0f ? FP_ILOGB0 : fabs(x) < INFINITY ? (int)e : FP_ILOGBNAN;
}

// The floats of one sign are ordered as their bits are.
float nextafter(float x, float y) {
  const int i = as_int(x);
  const float next = as_float((x < y) ^ (x < 0.0f) ? i + 1 : i - 1);
  const float least = copysign(1.401298464e-45f, y);
  return x != x ? x : y != y | x == y ? y : x == 0.0f ? least : next;
}

// |x| mod |y|, exact: with both as integers times powers of two, 38 binary digits of the quotient a round.
float _modulus(float a, float b) {
  const int p = as_int(a), q = as_int(b);
  const long m = p < 0x800000 ? (long)p : (long)(p & 0x7fffff | 0x800000);
  const long n = q < 0x800000 ? (long)q : (long)(q & 0x7fffff | 0x800000);
  const long divisor = n == 0 ? 1L : n;
  int left = max(p >> 23, 1) - max(q >> 23, 1);
  long r = m;
  do {
    const int digits = clamp(left, 0, 38);
    r = (r << digits) % divisor;
    left -= digits;
  } while (left > 0);
  const float x = (float)r * (b / (float)divisor);
  return a < INFINITY & b > 0.0f ? (a < b ? a : x) : a != a | b != b | a == INFINITY | b == 0.0f ? NAN : x;
}

float fmod(float x, float y) { return copysign(_modulus(fabs(x), fabs(y)), x); }

// x - n y with the integer n nearest to x / y, the even one of two.
float remainder(float x, float y) {
  const float b = fabs(y);
  const bool small = b < 2.350988702e-38f, large = b > 1.701411733e38f;
  float a = large ? fabs(x) : _modulus(fabs(x), b + b);
  a = b < INFINITY & fabs(x) < INFINITY & b > 0.0f ? a : b == INFINITY & fabs(x) < INFINITY ? fabs(x) : NAN;
  const float part = 0.5f * b;
  const bool once = small ? a + a > b : a > part;
  const float c = once ? a - b : a;
  const bool again = once & (small ? c + c >= b : c >= part);
  const float r = again ? c - b : c;
  return as_float(as_int(r) ^ as_int(x) & (int)0x80000000);
}
