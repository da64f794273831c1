// Windows over images [N, H, W, C]; other files include this one.
//
// The grid: channels of the result; columns; rows of all images, of which one has `rows`. Windows begin at stride * o -
// pad (`top`, `left`) and have taps_h * taps_w positions, a dilation apart.

#include "grid.cl"

// What kernels over windows are told of the image, of the window and of the result.
#define WINDOW int height, int width, int channels, int taps_h, int taps_w, int top, int left, int rows

// The pixel at (row, column) of a channel, or what lies around the image, of which `first_row` is row 0 of all images.
IN0 pixel(
    __global const IN0 *channel, size_t first_row, int row, int column, int height, int width, int channels, IN0 around)
{
    const size_t line = (first_row + clamp(row, 0, height - 1)) * width;
    IN0 near = around, found = around;
    if (height > 0 && width > 0) {
        // The nearest pixel is loaded where there is none: cheaper than work items that do not load.
        near = channel[(line + clamp(column, 0, width - 1)) * channels];
    }
    if ((uint)row < (uint)height && (uint)column < (uint)width) {
        found = near;
    }
    return found;
}
