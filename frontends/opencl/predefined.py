"""The macros that OpenCL C 1.2 defines (6.10, 6.12.2, 6.12.3, 6.12.8), as text."""

from __future__ import annotations

import math

PREDEFINED = {
    "__OPENCL_VERSION__": "120", "__OPENCL_C_VERSION__": "120", "CL_VERSION_1_0": "100", "CL_VERSION_1_1": "110",
    "CL_VERSION_1_2": "120", "CLK_LOCAL_MEM_FENCE": "1", "CLK_GLOBAL_MEM_FENCE": "2",
    "FLT_MAX": "3.4028234663852886e38f", "MAXFLOAT": "3.4028234663852886e38f", "FLT_MIN": "1.1754943508222875e-38f",
    "FLT_EPSILON": "1.1920928955078125e-7f", "FLT_DIG": "6", "FLT_MANT_DIG": "24", "FLT_RADIX": "2",
    "FLT_MAX_EXP": "128", "FLT_MIN_EXP": "(-125)", "FLT_MAX_10_EXP": "38", "FLT_MIN_10_EXP": "(-37)",
    "INFINITY": "1e999f", "HUGE_VALF": "1e999f", "NAN": "(0.0f / 0.0f)", "CHAR_BIT": "8",
    "FP_ILOGB0": "(-2147483647 - 1)", "FP_ILOGBNAN": "2147483647",
}  # fmt: skip
_CONSTANTS = {
    "E": math.e, "LOG2E": 1 / math.log(2), "LOG10E": 1 / math.log(10), "LN2": math.log(2), "LN10": math.log(10),
    "PI": math.pi, "PI_2": math.pi / 2, "PI_4": math.pi / 4, "1_PI": 1 / math.pi, "2_PI": 2 / math.pi,
    "2_SQRTPI": 2 / math.sqrt(math.pi), "SQRT2": math.sqrt(2), "SQRT1_2": math.sqrt(0.5),
}  # fmt: skip
PREDEFINED |= {f"M_{name}_F": f"{value!r}f" for name, value in _CONSTANTS.items()}

for _word, _bits in {"CHAR": 8, "SHRT": 16, "INT": 32, "LONG": 64}.items():
    _end = "L" if _bits == 64 else ""
    PREDEFINED[f"{_word}_MAX"] = f"{2 ** (_bits - 1) - 1}{_end}"
    PREDEFINED[f"{_word}_MIN"] = f"(-{2 ** (_bits - 1) - 1}{_end} - 1)"
    PREDEFINED[f"U{_word}_MAX"] = f"{2**_bits - 1}{'U' if _bits >= 32 else ''}{_end}"
PREDEFINED |= {"SCHAR_MAX": PREDEFINED["CHAR_MAX"], "SCHAR_MIN": PREDEFINED["CHAR_MIN"]}
