"""The backward pixel loop of `fused_numba`, one face at a time; see `pixels_numba`."""

from __future__ import annotations

import numpy as np
from numba import njit

from facegpt.render.interpolate import SLIVER_AREA
from facegpt.render.pixels_numba import BLOCK, FAST, colours, corners_of, light_of, next_block, surface


@njit(cache=True, nogil=True, fastmath=FAST)
def _colours_backward(
    count, normal, texel, corners, light, albedo, shading, grad, of_normal, of_light, of_uv
):
    """Adds to of_normal (3,N) and of_light (3,9), sets of_uv (2,N); grad (3,N) becomes that of the albedo."""
    two, three, six, one = (
        normal.dtype.type(2),
        normal.dtype.type(3),
        normal.dtype.type(6),
        normal.dtype.type(1),
    )
    x, y, z, fx, fy = normal[0], normal[1], normal[2], texel[0], texel[1]
    gx, gy, gz, du, dv = of_normal[0], of_normal[1], of_normal[2], of_uv[0], of_uv[1]
    du[:] = 0
    dv[:] = 0
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
        o0 = o1 = o2 = o3 = o4 = o5 = o6 = o7 = o8 = normal.dtype.type(0)
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
        out = of_light[d]
        out[0] += o0
        out[1] += o1
        out[2] += o2
        out[3] += o3
        out[4] += o4
        out[5] += o5
        out[6] += o6
        out[7] += o7
        out[8] += o8
        p, q, r, s = corners[4 * d], corners[4 * d + 1], corners[4 * d + 2], corners[4 * d + 3]
        for n in range(count):
            above, below = q[n] - p[n], s[n] - r[n]
            du[n] += g[n] * (above + (below - above) * fy[n])
            dv[n] -= g[n] * (r[n] - p[n] + (below - above) * fx[n])
    du, dv, across, down = of_uv[0], of_uv[1], texel[2], texel[3]
    for n in range(count):
        du[n] *= across[n]
        dv[n] *= down[n]


@njit(cache=True, nogil=True, fastmath=FAST)
def _normals_backward(count, normal, inverse, grad):
    """The gradient of unit normals (3,N) becomes that of the vectors that were scaled."""
    x, y, z, gx, gy, gz = normal[0], normal[1], normal[2], grad[0], grad[1], grad[2]
    for n in range(count):
        along = gx[n] * x[n] + gy[n] * y[n] + gz[n] * z[n]
        gx[n] = (gx[n] - along * x[n]) * inverse[n]
        gy[n] = (gy[n] - along * y[n]) * inverse[n]
        gz[n] = (gz[n] - along * z[n]) * inverse[n]


@njit(cache=True, nogil=True)
def _texture_backward(where, texel, grad, of_values):
    one = texel.dtype.type(1)
    for n in range(where.shape[1]):
        fx, fy = texel[0, n], texel[1, n]
        a, b, c, e = (one - fx) * (one - fy), fx * (one - fy), (one - fx) * fy, fx * fy
        p, q, r, s = 3 * where[0, n], 3 * where[1, n], 3 * where[2, n], 3 * where[3, n]
        for d in range(3):
            g = grad[d, n]
            of_values[p + d] += g * a
            of_values[q + d] += g * b
            of_values[r + d] += g * c
            of_values[s + d] += g * e


@njit(cache=True, nogil=True)
def shade_backward(
    ids,
    weights,
    projected,
    normals,
    lighting,
    values,
    of_image,
    of_seen_normals,
    of_depth,
    of_weights,
    of_projected,
    of_normals,
    of_lighting,
    of_values,
    triangles,
    uv,
    uv_triangles,
    slots,
    clamp,
    wanted,
    given,
    bands,
):
    has_image, has_normals, has_depth, has_weights = given
    kind = weights.dtype
    index, place = np.empty(BLOCK, np.int64), np.empty((2, BLOCK), np.int32)
    normal, inverse, texel = np.empty((3, BLOCK), kind), np.empty(BLOCK, kind), np.empty((4, BLOCK), kind)
    corners, where = np.empty((12, BLOCK), kind), np.empty((4, BLOCK), np.int32)
    albedo, shading = np.empty((3, BLOCK), kind), np.empty((3, BLOCK), kind)
    grad, of_normal, of_uv = (
        np.empty((3, BLOCK), kind),
        np.zeros((3, BLOCK), kind),
        np.zeros((2, BLOCK), kind),
    )
    light, of_light = light_of(lighting, bands), np.zeros((3, 9))
    height, width = slots.shape
    position = 0
    while position < len(ids):
        count, position = next_block(ids, position, index)
        block = index[:count]
        if has_image or has_normals:
            surface(
                block,
                ids,
                weights,
                normals,
                triangles,
                uv,
                uv_triangles,
                height,
                width,
                normal,
                inverse,
                texel,
                place,
            )
            of_normal[:] = 0
            if has_normals:
                for d in range(3):
                    for n in range(count):
                        of_normal[d, n] = of_seen_normals[d, block[n]]
            if has_image:
                for d in range(3):
                    for n in range(count):
                        grad[d, n] = of_image[d, block[n]]
                corners_of(place, slots, values, (corners, where[:, :count]))
                colours(count, normal, texel, corners, clamp, light, albedo, shading)
                _colours_backward(
                    count, normal, texel, corners, light, albedo, shading, grad, of_normal, of_light, of_uv
                )
                if wanted:
                    _texture_backward(where[:, :count], texel, grad, of_values)
            _normals_backward(count, normal, inverse, of_normal)
        for n in range(count):
            pixel = block[n]
            t = ids[pixel]
            a, b, c = weights[pixel, 0], weights[pixel, 1], weights[pixel, 2]
            i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            gx, gy, gz, du, dv = of_normal[0, n], of_normal[1, n], of_normal[2, n], of_uv[0, n], of_uv[1, n]
            # da, db, dc: gradient to the weights
            ti, tj, tk = uv_triangles[t, 0], uv_triangles[t, 1], uv_triangles[t, 2]
            da = (
                gx * normals[i, 0] + gy * normals[i, 1] + gz * normals[i, 2] + du * uv[ti, 0] + dv * uv[ti, 1]
            )
            db = (
                gx * normals[j, 0] + gy * normals[j, 1] + gz * normals[j, 2] + du * uv[tj, 0] + dv * uv[tj, 1]
            )
            dc = (
                gx * normals[k, 0] + gy * normals[k, 1] + gz * normals[k, 2] + du * uv[tk, 0] + dv * uv[tk, 1]
            )
            of_normals[i, 0] += a * gx
            of_normals[i, 1] += a * gy
            of_normals[i, 2] += a * gz
            of_normals[j, 0] += b * gx
            of_normals[j, 1] += b * gy
            of_normals[j, 2] += b * gz
            of_normals[k, 0] += c * gx
            of_normals[k, 1] += c * gy
            of_normals[k, 2] += c * gz
            if has_weights:
                da += of_weights[pixel, 0]
                db += of_weights[pixel, 1]
                dc += of_weights[pixel, 2]
            if has_depth:
                g = of_depth[pixel]
                da += g * projected[i, 2]
                db += g * projected[j, 2]
                dc += g * projected[k, 2]
                of_projected[i, 2] += a * g
                of_projected[j, 2] += b * g
                of_projected[k, 2] += c * g
            # A weight grows along the normal of the opposite edge; a corner moves its pixel the other way.
            x0, x1, x2 = projected[i, 0], projected[j, 0], projected[k, 0]
            y0, y1, y2 = projected[i, 1], projected[j, 1], projected[k, 1]
            area = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
            area = min(area, -SLIVER_AREA) if area < 0 else max(area, SLIVER_AREA)
            gx = (da * (y1 - y2) + db * (y2 - y0) + dc * (y0 - y1)) / area
            gy = (da * (x2 - x1) + db * (x0 - x2) + dc * (x1 - x0)) / area
            of_projected[i, 0] -= a * gx
            of_projected[i, 1] -= a * gy
            of_projected[j, 0] -= b * gx
            of_projected[j, 1] -= b * gy
            of_projected[k, 0] -= c * gx
            of_projected[k, 1] -= c * gy
    for d in range(3):
        for k in range(9):
            of_lighting[3 * k + d] = of_light[d, k] * bands[k]
    if clamp and wanted:
        for t in range(of_values.shape[0]):
            value, g = values[t], of_values[t]
            if (value > 1 and g < 0) or (value < 0 and g > 0):
                of_values[t] = 0
