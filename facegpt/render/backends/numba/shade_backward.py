"""The backward pixel loop of `fused`, one face at a time; see `shade`."""

from __future__ import annotations

import numpy as np
from numba import njit

from facegpt.head.compiled import loop, vector_loop
from facegpt.render.backends.numba.shade import (
    BLOCK,
    band_light,
    colors,
    new_block,
    sample_texels,
    unit_normals,
)
from facegpt.render.interpolate import SLIVER_AREA


@vector_loop
def _colors_backward(count, light, block, grad, grad_surface, grad_light):
    """Sets grad_surface (5,N), of normal (3) and place in the texture (2), and adds to grad_light (3,9).

    grad (3,N), of the colours, becomes that of the albedo.
    """
    normal, texel_share, texels = block.normal, block.texel_share, block.texels
    albedo, shading = block.albedo, block.shading
    dtype = normal.dtype.type
    one, two, three, six = dtype(1), dtype(2), dtype(3), dtype(6)
    x, y, z, fx, fy = normal[0], normal[1], normal[2], texel_share[0], texel_share[1]
    gx, gy, gz = grad_surface[0], grad_surface[1], grad_surface[2]
    right, down = grad_surface[3], grad_surface[4]
    grad_surface[:] = 0
    for d in range(3):
        g, a, s = grad[d], albedo[d], shading[d]
        m1, m2, m3, m4 = light[d, 1], light[d, 2], light[d, 3], light[d, 4]
        m5, m6, m7, m8 = light[d, 5], light[d, 6], light[d, 7], light[d, 8]
        for n in range(count):
            a[n] *= g[n]  # now the gradient of the shading
            g[n] *= s[n]
        for n in range(count):
            gx[n] += a[n] * (m1 + m4 * y[n] + m5 * z[n] + two * m7 * x[n])
            gy[n] += a[n] * (m2 + m4 * x[n] + m6 * z[n] - two * m7 * y[n])
            gz[n] += a[n] * (m3 + m5 * x[n] + m6 * y[n] + six * m8 * z[n])
        o0 = o1 = o2 = o3 = o4 = o5 = o6 = o7 = o8 = dtype(0)
        for n in range(count):
            o0 += a[n]
            o1 += a[n] * x[n]
            o2 += a[n] * y[n]
            o3 += a[n] * z[n]
            o4 += a[n] * x[n] * y[n]
            o5 += a[n] * x[n] * z[n]
            o6 += a[n] * y[n] * z[n]
            o7 += a[n] * (x[n] * x[n] - y[n] * y[n])
            o8 += a[n] * (three * z[n] * z[n] - one)
        for k, sum_of_pixels in enumerate((o0, o1, o2, o3, o4, o5, o6, o7, o8)):
            grad_light[d, k] += sum_of_pixels
        p, q, r, s = texels[4 * d], texels[4 * d + 1], texels[4 * d + 2], texels[4 * d + 3]
        for n in range(count):
            above, below = q[n] - p[n], s[n] - r[n]
            right[n] += g[n] * (above + (below - above) * fy[n])
            down[n] += g[n] * (r[n] - p[n] + (below - above) * fx[n])
    for n in range(count):
        right[n] *= texel_share[2, n]
        down[n] *= texel_share[3, n]


@vector_loop
def _normals_backward(count, normal, grad):
    """The gradient of unit normals, the first rows of grad, becomes that of the vectors that were scaled."""
    x, y, z, inverse, gx, gy, gz = normal[0], normal[1], normal[2], normal[3], grad[0], grad[1], grad[2]
    for n in range(count):
        along = gx[n] * x[n] + gy[n] * y[n] + gz[n] * z[n]
        gx[n] = (gx[n] - along * x[n]) * inverse[n]
        gy[n] = (gy[n] - along * y[n]) * inverse[n]
        gz[n] = (gz[n] - along * z[n]) * inverse[n]


@loop
def _texture_backward(count, texel_index, texel_share, grad, grad_values):
    one = texel_share.dtype.type(1)
    for n in range(count):
        fx, fy = texel_share[0, n], texel_share[1, n]
        a, b, c, e = (one - fx) * (one - fy), fx * (one - fy), (one - fx) * fy, fx * fy
        p, q, r, s = texel_index[0, n], texel_index[1, n], texel_index[2, n], texel_index[3, n]
        for d in range(3):
            g, shift = grad[d, n], np.uint32(d)
            grad_values[p + shift] += g * a
            grad_values[q + shift] += g * b
            grad_values[r + shift] += g * c
            grad_values[s + shift] += g * e


# Sums in order: on vector registers the few pixels of a triangle would cost more.
@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _corners_backward(
    run, start, stop, visible, run_end, bary_uv, grad, projected, normals, grad_projected, grad_normals,
    corners, uv, size,
):  # fmt: skip
    """Hand a block's grad (5,N), of normals and places in a texture of `size`, to the triangles' corners."""
    dtype = bary_uv.dtype.type
    zero, sliver, height, width = dtype(0), dtype(SLIVER_AREA), dtype(size[0]), dtype(size[1])
    gx, gy, gz, right, down = grad[0], grad[1], grad[2], grad[3], grad[4]
    n = start
    while n < stop:
        if run_end[run] <= n:
            run += 1
        t, end = visible[run], min(run_end[run], stop)
        ax = ay = az = au = av = bx = by = bz = bu = bv = cx = cy = cz = cu = cv = zero
        for m in range(n, end):
            a, b, c = bary_uv[0, m], bary_uv[1, m], bary_uv[2, m]
            x, y, z, u, v = gx[m - start], gy[m - start], gz[m - start], right[m - start], down[m - start]
            ax += a * x
            ay += a * y
            az += a * z
            au += a * u
            av += a * v
            bx += b * x
            by += b * y
            bz += b * z
            bu += b * u
            bv += b * v
            cx += c * x
            cy += c * y
            cz += c * z
            cu += c * u
            cv += c * v
        n = end
        i, j, k = corners[t, 0], corners[t, 1], corners[t, 2]
        ui, uj, uk = corners[t, 3], corners[t, 4], corners[t, 5]
        x0, x1, x2 = projected[i, 0], projected[j, 0], projected[k, 0]
        y0, y1, y2 = projected[i, 1], projected[j, 1], projected[k, 1]
        area = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
        area = min(area, -sliver) if area < 0 else max(area, sliver)
        # how the three weights grow along x and y: along the normal of the opposite edge
        dx = (y1 - y2) / area, (y2 - y0) / area, (y0 - y1) / area
        dy = (x2 - x1) / area, (x0 - x2) / area, (x1 - x0) / area
        for corner, sums in ((i, (ax, ay, az, au, av)), (j, (bx, by, bz, bu, bv)), (k, (cx, cy, cz, cu, cv))):
            nx, ny, nz, nu, nv = sums
            nu, nv = nu * width, -nv * height  # texels run down, v runs up
            # the gradients of the three weights, times this corner's weight
            da = nx * normals[i, 0] + ny * normals[i, 1] + nz * normals[i, 2]
            db = nx * normals[j, 0] + ny * normals[j, 1] + nz * normals[j, 2]
            dc = nx * normals[k, 0] + ny * normals[k, 1] + nz * normals[k, 2]
            da += nu * uv[ui, 0] + nv * uv[ui, 1]
            db += nu * uv[uj, 0] + nv * uv[uj, 1]
            dc += nu * uv[uk, 0] + nv * uv[uk, 1]
            grad_normals[corner, 0] += nx
            grad_normals[corner, 1] += ny
            grad_normals[corner, 2] += nz
            # When a corner moves, the weights change as if the pixels had moved the other way.
            grad_projected[corner, 0] -= da * dx[0] + db * dx[1] + dc * dx[2]
            grad_projected[corner, 1] -= da * dy[0] + db * dy[1] + dc * dy[2]


@loop
def shade_backward(
    order, visible, run_end, count, bary_uv, normals, lighting, values, projected, grad_image, grad_projected,
    grad_normals, grad_lighting, grad_values, corners, texel_slot, clamp, bands, uv, wanted,
):  # fmt: skip
    """Add one face's gradients to grad_projected, grad_normals, grad_lighting and, if wanted, grad_values.

    projected (V,3), uv (T,2): as in `locate_pixels`; the other arguments are those of `shade`.
    """
    dtype = normals.dtype
    block, light, grad_light = new_block(dtype), band_light(lighting, bands), np.zeros((3, 9))
    grad, grad_surface = np.empty((3, BLOCK), dtype), np.empty((5, BLOCK), dtype)
    run = 0
    for start in range(0, count[0], BLOCK):
        stop, first = min(start + BLOCK, count[0]), run
        length = stop - start
        run = unit_normals(run, start, stop, bary_uv, visible, run_end, normals, corners, block)
        sample_texels(start, stop, bary_uv, texel_slot, values, block)
        colors(length, clamp, light, block)
        for d in range(3):
            for n in range(length):
                grad[d, n] = grad_image[d, order[start + n]]
        _colors_backward(length, light, block, grad, grad_surface, grad_light)
        if wanted:
            _texture_backward(length, block.texel_index, block.texel_share, grad, grad_values)
        _normals_backward(length, block.normal, grad_surface)
        _corners_backward(
            first, start, stop, visible, run_end, bary_uv, grad_surface, projected, normals, grad_projected,
            grad_normals, corners, uv, texel_slot.shape,
        )  # fmt: skip
    for d in range(3):
        for k in range(9):
            grad_lighting[3 * k + d] = grad_light[d, k] * bands[k]
    if clamp and wanted:
        for t in range(len(grad_values)):
            value, g = values[t], grad_values[t]
            if (value > 1 and g < 0) or (value < 0 and g > 0):
                grad_values[t] = 0
