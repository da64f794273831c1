// Cells of LSTM in integers, equal to LiteRT's reference kernel bit for bit. GATES of them lie side by side, in the
// order i, f, g, o, without i where that is 1 - f: x_gates is [N, GATES, H]. A work item is an element of the state; where
// gates are normalised, some share a row.
//
// Gates are Q3.12, their activations Q0.15, the cell state is Qm.(15 - m) with CELL_BITS for m. PEEPHOLE_MULTIPLIERS and
// PEEPHOLE_SHIFTS are initial values of an array, of the gates i, f, o; NORM_MULTIPLIERS, NORM_SHIFTS and GUARDS of all.
// Kernels whose macros are missing are left out, so that any OpenCL compiler takes the file.

#include "fixed_point.cl"

// --- int16 -------------------------------------------------------------------------------------------------

// x within int16.
int saturate(int x)
{
    return clamp(x, SHRT_MIN, SHRT_MAX);
}

// a * b / 2^15, ties up.
int multiply16(int a, int b)
{
    return min((a * b + (1 << 14)) >> 15, SHRT_MAX);
}

// x / 2^exponent of an exponent above 0 and far from the ends of int32, ties away from zero.
int divide16(int x, int exponent)
{
    return (x + (1 << (exponent - 1)) + (x >> 31)) >> exponent;
}

// e^a in Q0.15 of a in [-1/4, 0), also Q0.15: four terms of Taylor's series around -1/8.
int exponential_near_zero(int a)
{
    const int exponential_of_minus_eighth = 28918, third = 10923;
    const int x = a + (1 << 12);
    const int x2 = multiply16(x, x), x3 = multiply16(x2, x), x4 = multiply16(x2, x2);
    const int higher = divide16(multiply16(divide16(x4, 2) + x3, third) + x2, 1);
    return min(exponential_of_minus_eighth + multiply16(exponential_of_minus_eighth, x + higher), SHRT_MAX);
}

// e^x in Q0.15 of x <= 0 in Qm.(15 - m), `bits` being m > 0. A rest in [-1/4, 0) goes through the series; each bit of the
// multiple of 1/4 that is left multiplies by e^(-2^bit), for bits from -2 to 4. Bits that m has not are not set.
int exponential(int x, int bits)
{
    const int quarter = 1 << (13 - bits);
    const int rest = (x & (quarter - 1)) - quarter, multiple = rest - x;
    int power = exponential_near_zero(rest << bits);
    power = multiple & 1 << (13 - bits) ? multiply16(power, 25520) : power;
    power = multiple & 1 << (14 - bits) ? multiply16(power, 19875) : power;
    power = multiple & 1 << (15 - bits) ? multiply16(power, 12055) : power;
    power = multiple & 1 << (16 - bits) ? multiply16(power, 4435) : power;
    power = multiple & 1 << (17 - bits) ? multiply16(power, 600) : power;
    power = multiple & 1 << (18 - bits) ? multiply16(power, 11) : power;
    power = multiple & 1 << (19 - bits) || x < -(1 << (20 - bits)) ? 0 : power;
    return x == 0 ? SHRT_MAX : power;
}

// 2 / (1 + a) in Q2.13 of a in [0, 1) in Q0.15: three steps of Newton and Raphson, which begin with
// 48/17 - 32/17 * halved.
int reciprocal(int a)
{
    const int halved = (a + (1 << 15)) >> 1;
    int x = 23130 + multiply16(halved, -15420);
    for (int i = 0; i < 3; i++) {
        x += saturate(multiply16(x, (1 << 13) - multiply16(halved, x)) << 2);
    }
    return x;
}

// 1 / (1 + e^-x) of Q3.12.
int sigmoid(int x)
{
    const int positive = saturate(reciprocal(exponential(-(int)abs(x), 3)) << 1);
    return x == 0 ? 1 << 14 : x > 0 ? positive : SHRT_MAX - positive;
}

// tanh of Qm.(15 - m), `bits` being m: (1 - e^-2x) / (1 + e^-2x).
int hyperbolic_tangent(int x, int bits)
{
    const int positive = saturate((reciprocal(exponential(-(int)abs(x), bits + 1)) - (1 << 13)) << 2);
    return x == 0 ? 0 : x > 0 ? positive : -positive;
}

// --- what both cells are made of ---------------------------------------------------------------------------
#ifdef GATES

#ifdef PEEPHOLE_MULTIPLIERS

__constant int peephole_multipliers[GATES - 1] = PEEPHOLE_MULTIPLIERS;
__constant int peephole_shifts[GATES - 1] = PEEPHOLE_SHIFTS;

// Behind other pointers, the peepholes [1 or N, GATES - 1, H]; behind other numbers, how far apart rows are, 0 for one.
#define PEEPHOLES , __global const short *peepholes
#define ROW_STEP , int row_step
#define SAME_PEEPHOLES , peepholes, row_step

#else

#define PEEPHOLES
#define ROW_STEP
#define SAME_PEEPHOLES

#endif

// A gate's place among the peepholes, below 0 for g, which has none.
#define SLOT(gate) ((gate) == GATES - 2 ? -1 : (gate) == GATES - 1 ? GATES - 2 : (gate))

// sat(sat(x + h) + peephole * cell) of a gate in a row of `size`; `slot` is its place among the peepholes.
// The input's product was saturated where it was made.
int gate_sum(
    __global const IN0 *x_gates, __global const IN1 *h_gates PEEPHOLES ROW_STEP, int row, int column, int size, int gate,
    int slot, int cell)
{
    const int at = (row * GATES + gate) * size + column;
    const int total = saturate(add_sat((int)x_gates[at], (int)h_gates[at]));
#ifdef PEEPHOLE_MULTIPLIERS
    if (slot >= 0) {
        const int product = peepholes[row * row_step + slot * size + column] * cell;
        return saturate(add_sat(total, requantise(product, peephole_multipliers[slot], peephole_shifts[slot])));
    }
#endif
    return total;
}

// f * c + i * g, clipped; i and f before their activations, i is not read where it is 1 - f.
int next_cell(int i, int f, int g, int before)
{
    const int forget = sigmoid(f);
#ifdef INPUT_FORGET
    const int admit = SHRT_MAX - forget;
#else
    const int admit = sigmoid(i);
#endif
    const int added = divide16(admit * hyperbolic_tangent(g, 3), 15 + CELL_BITS);
    const int cell = saturate(divide16(forget * before, 15) + added);
#ifdef CELL_CLIP
    return clamp(cell, -CELL_CLIP, CELL_CLIP);
#else
    return cell;
#endif
}

// o * tanh(cell), requantised; o before its activation.
char hidden_of(int o, int cell)
{
    const int product = sigmoid(o) * hyperbolic_tangent(cell, CELL_BITS);
    return (char)clamp(add_sat(requantise(product, HIDDEN_MULTIPLIER, HIDDEN_SHIFT), HIDDEN_ZERO), CHAR_MIN, CHAR_MAX);
}

#ifndef NORM_MULTIPLIERS

// --- without layer norms -----------------------------------------------------------------------------------

// The grid: hidden; batch.
__kernel void lstm_cell(
    __global const IN0 *x_gates, __global const IN1 *h_gates, __global const IN2 *c PEEPHOLES, __global OUT0 *hidden,
    __global OUT1 *new_c ROW_STEP)
{
    const int size = get_global_size(0), column = get_global_id(0), row = get_global_id(1);
    const int at = row * size + column, first = GATES - 3, before = c[at];
    const int i = gate_sum(x_gates, h_gates SAME_PEEPHOLES, row, column, size, 0, SLOT(0), before);
    const int f = gate_sum(x_gates, h_gates SAME_PEEPHOLES, row, column, size, first, SLOT(first), before);
    const int g = gate_sum(x_gates, h_gates SAME_PEEPHOLES, row, column, size, first + 1, SLOT(first + 1), 0);
    const int cell = next_cell(i, f, g, before);
    const int o = gate_sum(x_gates, h_gates SAME_PEEPHOLES, row, column, size, first + 2, SLOT(first + 2), cell);
    hidden[at] = hidden_of(o, cell);
    new_c[at] = (OUT1)cell;
}

#else

// --- with layer norms --------------------------------------------------------------------------------------

__constant int norm_multipliers[GATES] = NORM_MULTIPLIERS;
__constant int norm_shifts[GATES] = NORM_SHIFTS;
__constant int guards[GATES] = GUARDS;

// A row is shared out among `shares` work items where rows are few: SHARES of all rows together, which meet in local
// memory. Without shares each work item has a row of its own.
#define SHARES 64

// The sums over a row of what its work items found, for the gates from `first` to `end`.
void meet(int *sum, long *squares, __local int *sums, __local long *products, int first, int end)
{
    const int shares = get_global_size(0), row = get_global_id(1) * shares;
    for (int gate = first; gate < end; gate++) {
        sums[gate * SHARES + row + get_global_id(0)] = sum[gate];
        products[gate * SHARES + row + get_global_id(0)] = squares[gate];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int gate = first; gate < end; gate++) {
        int total = 0;
        long total_squares = 0;
        for (int share = 0; share < shares; share++) {
            total += sums[gate * SHARES + row + share];
            total_squares += products[gate * SHARES + row + share];
        }
        sum[gate] = total;
        squares[gate] = total_squares;
    }
}

// Of the gates from `first` to `end`, a row's mean with ten fractional bits, and the inverse of its standard deviation as
// a multiplier and a shift. `cells` is what peepholes read. A variance below 1 counts as the gate's guard.
void row_statistics(
    __global const IN0 *x_gates, __global const IN1 *h_gates PEEPHOLES ROW_STEP, __global const short *cells,
    __local int *sums, __local long *products, int row, int size, int first, int end, int *means, int *multipliers,
    int *shifts)
{
    int sum[GATES];
    long squares[GATES];
    for (int gate = first; gate < end; gate++) {
        int total = 0;
        long total_squares = 0;
        for (int column = get_global_id(0); column < size; column += get_global_size(0)) {
            const int cell = cells[row * size + column];
            const int value = gate_sum(x_gates, h_gates SAME_PEEPHOLES, row, column, size, gate, SLOT(gate), cell);
            total += value;
            total_squares += value * value;
        }
        sum[gate] = total;
        squares[gate] = total_squares;
    }
    if (get_global_size(0) > 1) {
        meet(sum, squares, sums, products, first, end);
    }
    for (int gate = first; gate < end; gate++) {
        const int mean = (int)((long)sum[gate] * 1024 / size);
        // 2^20 / size is truncated first, as in the reference: the variance is that of a power of two alone
        const long variance = (squares[gate] * ((1 << 20) / size) - (long)mean * mean) / (1 << 20);
        const int2 inverse = inverse_square_root(variance < 1 ? (long)guards[gate] : variance);
        means[gate] = mean;
        multipliers[gate] = inverse.s0;
        shifts[gate] = inverse.s1;
    }
}

// A gate behind its layer norm: its sum, the row's statistics, and the column's coefficient and bias.
int normalised(int sum, int mean, int multiplier, int shift, int coefficient, int bias, int gate)
{
    const long weighted = (long)requantise(1024 * sum - mean, multiplier, shift) * coefficient + bias;
    const int rounded = (int)((weighted + 512 + (weighted >> 63)) >> 10);
    return saturate(requantise(rounded, norm_multipliers[gate], norm_shifts[gate]));
}

// The grid: shares; rows of `size`.
__kernel void norm_lstm_cell(
    __global const IN0 *x_gates, __global const IN1 *h_gates, __global const IN2 *c, __global const IN3 *coefficients,
    __global const IN4 *biases PEEPHOLES, __global OUT0 *hidden, __global OUT1 *new_c, int size ROW_STEP)
{
    __local int sums[GATES * SHARES];
    __local long products[GATES * SHARES];
    const int shares = get_global_size(0), row = get_global_id(1), last = GATES - 1;
    int means[GATES], multipliers[GATES], shifts[GATES], values[GATES];
    row_statistics(
        x_gates, h_gates SAME_PEEPHOLES, c, sums, products, row, size, 0, last, means, multipliers, shifts);
    for (int column = get_global_id(0); column < size; column += shares) {
        const int before = c[row * size + column];
        for (int gate = 0; gate < last; gate++) {
            const int at = gate * size + column;
            const int sum = gate_sum(x_gates, h_gates SAME_PEEPHOLES, row, column, size, gate, SLOT(gate), before);
            values[gate] =
                normalised(sum, means[gate], multipliers[gate], shifts[gate], coefficients[at], biases[at], gate);
        }
        new_c[row * size + column] = (OUT1)next_cell(values[0], values[GATES - 3], values[GATES - 2], before);
    }
    // each work item reads what it wrote itself
    row_statistics(
        x_gates, h_gates SAME_PEEPHOLES, new_c, sums, products, row, size, last, GATES, means, multipliers, shifts);
    for (int column = get_global_id(0); column < size; column += shares) {
        const int cell = new_c[row * size + column], at = last * size + column;
        const int sum = gate_sum(x_gates, h_gates SAME_PEEPHOLES, row, column, size, last, SLOT(last), cell);
        const int o =
            normalised(sum, means[last], multipliers[last], shifts[last], coefficients[at], biases[at], last);
        hidden[row * size + column] = hidden_of(o, cell);
    }
}

#endif
#endif
