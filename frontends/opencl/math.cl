// The mathematical functions of OpenCL C 1.2 (6.12.2), in the subset itself: the front end inlines them where a kernel
// calls them. Only + - * /, sqrt, fma, conversions and integers: the bits are the same on every machine. Coefficients
// are made by benchmarks/opencl_coefficients.py; reductions follow Cody and Waite, "Software Manual for the Elementary
// Functions" (1980). Names that begin with an underscore cannot be called from a kernel.

#pragma OPENCL FP_CONTRACT OFF

#define MAGIC 12582912.0f  // 1.5 · 2^23: adding it rounds to an integer n, which then stands in the low bits

// --- exponential functions -----------------------------------------------------------------------------------------

// p · 2^n, the n in the low bits of t; in two steps, of which only the second rounds, where the result is subnormal.
float _scaled(float p, float t) {
  const uint whole = as_uint(t) << 23, part = (as_uint(t) >> 1) << 23;
  return p * as_float(part + 0x3f800000u) * as_float(whole - part + 0x3f800000u);
}

// (r, t): x = n ln 2 + r and |r| < 0.35, the n in the low bits of t. A NaN goes through, and so does +inf.
float2 _halvings(float x) {
  const float low = x < -104.0f ? -104.0f : x;
  const float t = fmin(low, 90.0f) * 1.44269502f + MAGIC;
  const float n = t - MAGIC;
  return (float2)(low - n * 6.931457520e-01f - n * 1.428606765e-06f, t);
}

// exp(r) for |r| < 0.42
float _near(float r) {
  const float q = (((1.382096321e-03f * r + 8.369827643e-03f) * r + 4.166829586e-02f) * r + 1.666651219e-01f) * r
      + 4.999999404e-01f;
  return r * r * q + r + 1.0f;
}

float exp(float x) {
  const float2 e = _halvings(x);
  return _scaled(_near(e.x), e.y);
}

float exp2(float x) {
  const float low = x < -151.0f ? -151.0f : x;
  const float t = fmin(low, 129.0f) + MAGIC;
  const float r = low - (t - MAGIC);
  const float p = ((((1.532923488e-04f * r + 1.339189010e-03f) * r + 9.618503042e-03f) * r + 5.550358072e-02f) * r
      + 2.402264774e-01f) * r + 6.931471825e-01f;
  return _scaled(p * r + 1.0f, t);
}

float exp10(float x) {
  const float low = x < -46.0f ? -46.0f : x;
  const float t = fmin(low, 39.0f) * 3.321928024f + MAGIC;
  const float n = t - MAGIC;
  const float r = low - n * 3.010253906e-01f - n * 4.605039067e-06f;
  const float p = ((((2.062180489e-01f * r + 5.418873429e-01f) * r + 1.171294689f) * r + 2.034655094f) * r
      + 2.650948763f) * r + 2.302585125f;
  return _scaled(p * r + 1.0f, t);
}

// 2^n (expm1(r) + 1 - 2^-n); signs are such that -0 stays.
float expm1(float x) {
  const float low = x < -20.0f ? -20.0f : x;
  const float t = fmin(low, 89.0f) * 1.44269502f + MAGIC;
  const float n = t - MAGIC;
  const float r = low - n * 6.931457520e-01f - n * 1.428606765e-06f;
  const float q = ((((1.977131469e-04f * r + 1.393412473e-03f) * r + 8.333537728e-03f) * r + 4.166647792e-02f) * r
      + 1.666666567e-01f) * r + 0.5f;
  const float unit = fmax(as_float(0x3f800000u - (as_uint(t) << 23)), 0.0f);
  return _scaled(r * (q * r + 1.0f) - (unit - 1.0f), t);
}

// --- hyperbolic functions ------------------------------------------------------------------------------------------

float cosh(float x) {
  const float2 e = _halvings(fabs(x));
  const float part = _scaled(_near(e.x), e.y - 1.0f);
  return part + 0.25f / part;
}

float sinh(float x) {
  const float a = fabs(x), z = x * x;
  const float2 e = _halvings(a);
  const float part = _scaled(_near(e.x), e.y - 1.0f);
  const float p = ((2.782213187e-06f * z + 1.984289556e-04f) * z + 8.333310485e-03f) * z + 1.666666716e-01f;
  return a < 1.0f ? x + x * z * p : copysign(part - 0.25f / part, x);
}

// 1 - 2 / (exp(2 |x|) + 1), beside a polynomial for small x; exp has to be right only where it is small.
float tanh(float x) {
  const float a = fabs(x), z = x * x;
  const float u = (a > 9.1f ? 9.1f : a) * 2.885390043f, t = u + MAGIC;
  const float r = u - (t - MAGIC);
  const float p = ((((1.325743739e-03f * r + 9.672431275e-03f) * r + 5.550769717e-02f) * r + 2.402222902e-01f) * r
      + 6.931469440e-01f) * r + 1.0f;
  const float y = 1.0f - 2.0f / (p * as_float((as_uint(t) << 23) + 0x3f800000u) + 1.0f);
  const float q = (((-6.245992612e-03f * z + 2.105247229e-02f) * z - 5.384784937e-02f) * z + 1.333254576e-01f) * z
      - 3.333331645e-01f;
  return a < 0.55f ? x * (z * q + 1.0f) : x < 0.0f ? -y : y;
}

// --- error function ------------------------------------------------------------------------------------------------

// 1 - 1 / p(a)^8 as in Hastings, "Approximations for Digital Computers" (1955), beside a polynomial for small a.
float erf(float x) {
  const float a = fabs(x), b = a > 3.95f ? 3.95f : a, z = x * x;
  const float p = ((((((4.783236363e-04f * b - 3.235793207e-03f) * b + 1.397857163e-02f) * b - 2.292567305e-02f) * b
      + 5.781544372e-02f) * b + 6.417724490e-02f) * b + 1.517495066e-01f) * b + 9.980744720e-01f;
  const float two = p * p, four = two * two, y = 1.0f - 1.0f / (four * four);
  const float q = (((((8.002774848e-05f * z - 8.050804026e-04f) * z + 5.192460492e-03f) * z - 2.685574070e-02f) * z
      + 1.128362566e-01f) * z - 3.761262894e-01f) * z + 1.283791661e-01f;
  return a < 0.93f ? x + x * q : x < 0.0f ? -y : y;
}

// exp(-x²) erfcx(|x|), the square in two parts and the scaled function a polynomial of (|x| - 3) / (|x| + 3).
float erfc(float x) {
  const float a = fmin(fabs(x), 12.0f), t = (a - 3.0f) / (a + 3.0f);
  const float q = ((((((((-6.688178837e-05f * t - 5.866898573e-04f) * t + 7.889195113e-04f) * t + 4.278623033e-03f) * t
      - 2.441433631e-02f) * t + 7.166346908e-02f) * t - 1.501135975e-01f) * t + 2.456038892e-01f) * t
      - 3.262336254e-01f) * t + 1.790011525e-01f;
  const float high = as_float(as_uint(a) & 0xfffff000u);
  const float2 e = _halvings(-high * high);
  const float y = _scaled(_near(e.x + (high - a) * (high + a)) * q, e.y);
  return x != x ? x : x < 0.0f ? 2.0f - y : y;
}

// --- logarithms ----------------------------------------------------------------------------------------------------

// log(1 + f) - f for 1/sqrt(2) <= 1 + f <= sqrt(2)
float _log_rest(float f) {
  const float p = ((((((-7.636395097e-02f * f + 1.276219785e-01f) * f - 1.315961331e-01f) * f + 1.420158148e-01f) * f
      - 1.662340909e-01f) * f + 2.000124156e-01f) * f - 2.500081956e-01f) * f + 3.333333135e-01f;
  return f * f * (f * p - 0.5f);
}

// (k, f) with x = 2^k (1 + f)
float2 _logarithm(float x) {
  const bool tiny = x < 1.17549435e-38f;
  const uint i = as_uint(tiny ? x * 33554432.0f : x) - 0x3f3504f3u;
  const float k = (float)((int)i >> 23) - (tiny ? 25.0f : 0.0f);
  return (float2)(k, as_float((i & 0x7fffffu) + 0x3f3504f3u) - 1.0f);
}

// The logarithm r, or what it is of 0, inf, NaN and negative numbers.
float _logarithm_of(float x, float r) {
  const float positive = x < INFINITY ? r : x;
  return x > 0.0f ? positive : x == 0.0f ? -INFINITY : NAN;
}

float log(float x) {
  const float2 s = _logarithm(x);
  return _logarithm_of(x, s.y + (_log_rest(s.y) + s.x * 1.428606765e-06f) + s.x * 6.931457520e-01f);
}

float log2(float x) {
  const float2 s = _logarithm(x);
  const float f = s.y, rest = _log_rest(f);
  return _logarithm_of(x, rest * 4.426950514e-01f + f * 4.426950514e-01f + rest + f + s.x);
}

float log10(float x) {
  const float2 s = _logarithm(x);
  const float f = s.y, rest = _log_rest(f);
  const float low = (f + rest) * 7.007318782e-04f + s.x * 4.605039067e-06f;
  return _logarithm_of(x, low + rest * 4.335937500e-01f + f * 4.335937500e-01f + s.x * 3.010253906e-01f);
}

// With u = 1 + x rounded and the error c of the sum: log(u + c), both scaled by the power of two in u.
float log1p(float x) {
  const float u = x + 1.0f, c = (x - (u - 1.0f)) - ((u - (u - 1.0f)) - 1.0f);
  const uint i = as_uint(u) - 0x3f3504f3u;
  const float k = (float)((int)i >> 23), m = as_float((i & 0x7fffffu) + 0x3f3504f3u);
  const float unit = fmax(as_float(0x3f800000u - (i & 0xff800000u)), 0.0f);
  const float f = m - 1.0f + c * unit;
  const float r = f + (_log_rest(f) + k * 1.428606765e-06f) + k * 6.931457520e-01f;
  return x == 0.0f ? x : _logarithm_of(u, r);
}

// --- inverse hyperbolic functions ----------------------------------------------------------------------------------

// Beyond 2^30 what is under the root is x², and log(2a) = log(a) + ln 2.
float asinh(float x) {
  const float a = fabs(x), z = a * a;
  const bool far = a > 1.073741824e9f;
  const float y = log1p(far ? a : a + z / (1.0f + sqrt(z + 1.0f)));
  return copysign(far ? y + 6.931471825e-01f : y, x);
}

float acosh(float x) {
  const float t = x - 1.0f;
  const bool far = x > 1.073741824e9f;
  const float y = log1p(far ? x : t + sqrt(t * (x + 1.0f)));
  return x < 1.0f ? NAN : far ? y + 6.931471825e-01f : y;
}

float atanh(float x) {
  const float a = fabs(x);
  return copysign(0.5f * log1p(2.0f * a / (1.0f - a)), x);
}

// --- powers --------------------------------------------------------------------------------------------------------

float rsqrt(float x) { return 1.0f / sqrt(x); }

// x^y for 0 < x < inf, by a logarithm of about 30 bits in two floats: log2(m) = (2 / ln 2) atanh((m - 1) / (m + 1)).
float _power(float x, float y) {
  const float2 s = _logarithm(x);
  const float f = s.y, m = f + 1.0f, d = f + 2.0f, inverse = 1.0f / d;
  const float high = f * inverse;
  const float low = (fma(-high, d, f) - high * (f - (d - 2.0f))) * inverse;
  const float z = high * high;
  const float odd = high * z * ((1.494576931e-01f * z + 1.998841166e-01f) * z + 3.333339095e-01f);
  const float head = high * 2.885390043f;
  const float rest = fma(high, 2.885390043f, -head) + (high * 3.851926067e-08f + (low + odd) * 2.885390043f);
  const float sum = s.x + head;
  const float tail = (head - (sum - s.x)) + rest;
  const float l = sum + tail, error = tail - (l - sum);
  const float b = fmax(fmin(y, 4294967296.0f), -4294967296.0f);
  const float product = b * l;
  const float e = fma(b, l, -product) + b * error;
  const float t = fmax(fmin(product, 160.0f), -160.0f) + MAGIC;
  const float r = fmax(fmin((product - (t - MAGIC)) + e, 1.0f), -1.0f);
  const float p = ((((1.532923488e-04f * r + 1.339189010e-03f) * r + 9.618503042e-03f) * r + 5.550358072e-02f) * r
      + 2.402264774e-01f) * r + 6.931471825e-01f;
  return _scaled(p * r + 1.0f, t);
}

// C99 F.9.4.4: roots of negative numbers, zero and infinity, NaN, the sign, then what is 1 whatever the other is.
float pow(float x, float y) {
  const float a = fabs(x);
  const bool whole = trunc(y) == y, odd = whole & (trunc(y * 0.5f) != y * 0.5f);
  float r = _power(a, y);
  r = x < 0.0f & !whole ? NAN : r;
  r = a == 0.0f | a == INFINITY ? ((a < 1.0f) ^ (y < 0.0f) ? 0.0f : INFINITY) : r;
  r = x != x | y != y ? NAN : r;
  r = odd & as_int(x) < 0 ? -r : r;
  return y == 0.0f | x == 1.0f ? 1.0f : r;
}

// 6.12.2: exp(y log(x)), so that 0^0, inf^0 and 1^inf are not numbers.
float powr(float x, float y) {
  float r = _power(x, y);
  r = x == 0.0f | x == INFINITY ? (y == 0.0f ? NAN : (x < 1.0f) ^ (y < 0.0f) ? 0.0f : INFINITY) : r;
  return x < 0.0f | x != x | y != y | x == 1.0f & fabs(y) == INFINITY ? NAN : r;
}

// Newton's method for 1/cbrt(|x|), which needs no division, then one step for the root itself.
float cbrt(float x) {
  const float a = fabs(x);
  const bool tiny = a < 1.17549435e-38f;
  const float b = tiny ? a * 16777216.0f : a;
  float r = as_float(0x548c2b4b - (int)((float)as_int(b) * 0.333333343f));
  r = r * (1.33333337f - 0.333333343f * b * r * r * r);
  r = r * (1.33333337f - 0.333333343f * b * r * r * r);
  r = r * (1.33333337f - 0.333333343f * b * r * r * r);
  const float c = b * r * r;
  const float y = c - (c * c * c - b) * (0.333333343f * r * r);
  return a > 0.0f & a < INFINITY ? copysign(tiny ? y * 0.00390625f : y, x) : x;
}

// --- trigonometric functions ---------------------------------------------------------------------------------------

// (r, n): x = r + n pi/2 with |r| < 0.79 and n modulo 4, after Payne and Hanek (1983): of the bits of 2/pi those 96 are
// taken that matter for the exponent of x, and multiplied by its mantissa in fixed point, two bits before the point.
float2 _quarter(float x) {
  const float a = fabs(x);
  const uint i = as_uint(a);
  const ulong m = (ulong)((i & 0x7fffffu | 0x800000u) << (i >= 0x3f800000u ? 1u : 0u));
  const uint s = max(i >> 23, 127u) - 127u;
  const bool far = s >= 64u;
  const ulong high = far ? 0x91054a7f09d5f47dUL : 0x00000028be60db93UL;
  const ulong middle = far ? 0x4d377036d8a5664fUL : 0x91054a7f09d5f47dUL;
  const ulong low = far ? 0x10e4107f9458eaf7UL : 0x4d377036d8a5664fUL;
  const ulong first = high << s | middle >> 1 >> (~s & 63u), second = middle << s | low >> 1 >> (~s & 63u);
  const ulong turned = m * first + (m * (second >> 32) >> 32) + 0x2000000000000000UL;
  const float r = (float)(long)((turned & 0x3fffffffffffffffUL) - 0x2000000000000000UL) * 3.406121580e-19f;
  const int n = (int)(turned >> 62);
  const bool near = a < 0.785f;
  return (float2)(near ? x : x < 0.0f ? -r : r, as_float(near ? 0 : (x < 0.0f ? -n : n) & 3));
}

float _sine(float r) {
  const float z = r * r;
  return r * ((((2.770776291e-06f * z - 1.984756527e-04f) * z + 8.333368227e-03f) * z - 1.666666716e-01f) * z + 1.0f);
}

float _cosine(float r) {
  const float z = r * r;
  return 1.0f - 0.5f * z + z * z * ((2.433313966e-05f * z - 1.388633973e-03f) * z + 4.166662320e-02f);
}

// The sine n quarter turns later.
float _turned(float x, float r, uint n) {
  const float y = (n & 1u) ? _cosine(r) : _sine(r);
  return fabs(x) < INFINITY ? as_float(as_uint(y) ^ (n & 2u) << 30) : NAN;
}

float sin(float x) {
  const float2 q = _quarter(x);
  return _turned(x, q.x, as_uint(q.y));
}

float cos(float x) {
  const float2 q = _quarter(x);
  return _turned(x, q.x, as_uint(q.y) + 1u);
}

float tan(float x) {
  const float2 q = _quarter(x);
  const float s = _sine(q.x), c = _cosine(q.x);
  const bool odd = as_uint(q.y) & 1u;
  const float y = (odd ? -c : s) / (odd ? s : c);
  return fabs(x) < INFINITY ? y : NAN;
}

// asin(s) / s - 1, of z = s * s <= 1/4
float _arcsine(float z) {
  return ((((4.215830564e-02f * z + 2.418477833e-02f) * z + 4.546914995e-02f) * z + 7.495309412e-02f) * z
      + 1.666675210e-01f) * z;
}

float asin(float x) {
  const float a = fabs(x);
  const bool far = a > 0.5f;
  const float z = far ? 0.5f - 0.5f * a : x * x;
  const float s = far ? sqrt(z) : a;
  const float p = s + s * _arcsine(z);
  return copysign(far ? 1.570796371f - (2.0f * p + 4.371138829e-08f) : p, x);
}

float acos(float x) {
  const float a = fabs(x);
  const bool far = a > 0.5f;
  const float z = far ? 0.5f - 0.5f * a : x * x;
  const float s = far ? sqrt(z) : x;
  const float q = s * _arcsine(z);
  const float near = 1.570796371f - (s + (q + 4.371138829e-08f));
  const float twice = 2.0f * (s + q);
  return far ? (x < 0.0f ? 3.141592741f - (twice + 8.742277657e-08f) : twice) : near;
}

// atan(a) for 0 <= a <= 1
float _arctangent(float a) {
  const float z = a * a;
  const float p = (((((((-1.787547604e-03f * z + 1.088736113e-02f) * z - 3.112700209e-02f) * z + 5.790654570e-02f) * z
      - 8.400475234e-02f) * z + 1.095117480e-01f) * z - 1.426405162e-01f) * z + 1.999853104e-01f) * z
      - 3.333329856e-01f;
  return a + a * z * p;
}

float atan(float x) {
  const float a = fabs(x);
  const bool far = a > 1.0f;
  const float p = _arctangent(far ? 1.0f / a : a);
  return copysign(far ? 1.570796371f - (p + 4.371138829e-08f) : p, x);
}

float atan2(float y, float x) {
  const float a = fabs(x), b = fabs(y);
  const bool steep = b > a;
  const float small = steep ? a : b, large = steep ? b : a;
  float p = _arctangent(large == 0.0f ? 0.0f : small == large ? 1.0f : small / large);
  p = steep ? 1.570796371f - (p + 4.371138829e-08f) : p;
  p = as_int(x) < 0 ? 3.141592741f - (p + 8.742277657e-08f) : p;
  return x != x | y != y ? NAN : copysign(p, y);
}
