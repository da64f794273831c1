// Geometric functions of OpenCL C 1.2 (6.12.5), by the number of elements. Sums are those of PoCL: of four products
// the first two and the last two.

#pragma OPENCL FP_CONTRACT OFF

float _dot1(float a, float b) { return a * b; }

float _dot2(float2 a, float2 b) { return a.x * b.x + a.y * b.y; }

float _dot4(float4 a, float4 b) { return (a.x * b.x + a.y * b.y) + (a.z * b.z + a.w * b.w); }

// A power of two that brings a sum of squares into the range of normal floats; 1 where it lies there.
float _factor(float squares) { return squares < FLT_MIN ? 0x1p86f : squares == INFINITY ? 0x1p-65f : 1.0f; }

float _length1(float v) { return fabs(v); }

float _length2(float2 v) {
  const float up = _factor(_dot2(v, v));
  return sqrt(_dot2(v * up, v * up)) * (1.0f / up);
}

float _length4(float4 v) {
  const float up = _factor(_dot4(v, v));
  return sqrt(_dot4(v * up, v * up)) * (1.0f / up);
}

float _distance1(float a, float b) { return fabs(a - b); }

float _distance2(float2 a, float2 b) { return _length2(a - b); }

float _distance4(float4 a, float4 b) { return _length4(a - b); }

float _normalize1(float v) { return sign(v); }

// Infinite elements become 1, the others 0; zeros stay.
float2 _normalize2(float2 v) {
  float2 w = v * _factor(_dot2(v, v));
  if (_dot2(w, w) == INFINITY) w = copysign((float2)(isinf(v.x) ? 1.0f : 0.0f, isinf(v.y) ? 1.0f : 0.0f), v);
  const float squares = _dot2(w, w);
  return squares == 0.0f ? v : w * (1.0f / sqrt(squares));
}

float4 _normalize4(float4 v) {
  float4 w = v * _factor(_dot4(v, v));
  if (_dot4(w, w) == INFINITY) {
    w = copysign((float4)(isinf(v.x) ? 1.0f : 0.0f, isinf(v.y) ? 1.0f : 0.0f, isinf(v.z) ? 1.0f : 0.0f,
                          isinf(v.w) ? 1.0f : 0.0f), v);
  }
  const float squares = _dot4(w, w);
  return squares == 0.0f ? v : w * (1.0f / sqrt(squares));
}

// Of the first three elements; the fourth is 0.
float4 _cross4(float4 a, float4 b) {
  return (float4)(a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x, 0.0f);
}
