// Cells of LSTM and GRU in floats, a work item an element of the state. Gates lie side by side: x_gates is [N, k, H].
// F_OF_X, G_OF_X and H_OF_X are the activations as expressions of x; CLIP bounds the sums that go into the first two.
// Kernels whose macros are missing are left out, so that any OpenCL compiler takes the file.

#pragma OPENCL FP_CONTRACT OFF

float bounded(float x)
{
#ifdef CLIP
    return x < -CLIP ? -CLIP : x > CLIP ? CLIP : x;
#else
    return x;
#endif
}

float apply_f(float sum)
{
    const float x = bounded(sum);
    return F_OF_X;
}

float apply_g(float sum)
{
    const float x = bounded(sum);
    return G_OF_X;
}

#ifdef OUT1

float apply_h(float x)
{
    return H_OF_X;
}

// Gates i, o, f, c; peepholes i, o, f. The grid: hidden; batch.
__kernel void lstm_cell(
    __global const IN0 *x_gates, __global const IN1 *h_gates, __global const IN2 *c,
#ifdef PEEPHOLES
    __global const IN3 *peepholes,
#endif
    __global OUT0 *new_h, __global OUT1 *new_c)
{
    const size_t hidden = get_global_size(0), column = get_global_id(0), row = get_global_id(1) * hidden;
    const size_t at = row + column, gate = row * 4 + column;
    const float before = c[at];
    float i = x_gates[gate] + h_gates[gate];
    float o = x_gates[gate + hidden] + h_gates[gate + hidden];
    float f = x_gates[gate + hidden * 2] + h_gates[gate + hidden * 2];
#ifdef PEEPHOLES
    i = i + peepholes[column] * before;
    f = f + peepholes[column + hidden * 2] * before;
#endif
    i = apply_f(i);
#ifdef INPUT_FORGET
    f = 1.0f - i;
#else
    f = apply_f(f);
#endif
    float cell = f * before + i * apply_g(x_gates[gate + hidden * 3] + h_gates[gate + hidden * 3]);
#ifdef CELL_CLIP
    cell = cell < -CELL_CLIP ? -CELL_CLIP : cell > CELL_CLIP ? CELL_CLIP : cell;
#endif
#ifdef PEEPHOLES
    o = o + peepholes[column + hidden] * cell;
#endif
    new_h[at] = apply_f(o) * apply_h(cell);
    new_c[at] = cell;
}

#endif

// r * h; gates z, r (, h) of x and z, r of h. The grid: hidden; batch.
__kernel void gru_reset(
    __global const IN0 *x_gates, __global const IN1 *h_gates, __global const IN2 *h, __global OUT0 *y)
{
    const size_t hidden = get_global_size(0), row = get_global_id(1) * hidden, column = get_global_id(0);
    const float r = apply_f(x_gates[row * 3 + column + hidden] + h_gates[row * 2 + column + hidden]);
    y[row + column] = r * h[row + column];
}

#ifdef IN3

// Gates z, r, h of x and z, r of h; the candidate's product is reset here or was before. The grid: hidden; batch.
__kernel void gru_cell(
    __global const IN0 *x_gates, __global const IN1 *h_gates, __global const IN2 *candidate, __global const IN3 *h,
    __global OUT0 *new_h)
{
    const size_t hidden = get_global_size(0), row = get_global_id(1) * hidden, column = get_global_id(0);
    const size_t at = row + column, x = row * 3 + column, s = row * 2 + column;
    const float z = apply_f(x_gates[x] + h_gates[s]);
    float product = candidate[at];
#ifdef RESET_AFTER
    product = apply_f(x_gates[x + hidden] + h_gates[s + hidden]) * product;
#endif
    const float n = apply_g(x_gates[x + hidden * 2] + product);
    new_h[at] = (1.0f - z) * n + z * h[at];
}

#endif
