"""The pixel loops of `fused_numba`, one face at a time.

Pixels are taken in blocks: values are gathered into short rows, on which the arithmetic runs on vector
registers (sums in any order, no NaN to look after), and scattered again. numba infers the types.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from facegpt.render.interpolate import SLIVER_AREA
from facegpt.render.shade_numba import _texel

BLOCK = 128
_FAST = {"reassoc", "contract", "nsz", "nnan", "arcp"}
_MARKED = 0


@njit(cache=True, nogil=True)
def weigh(ids, projected, depth, weights, mask, skin, triangles, uv, uv_triangles, skin_triangles, slots):
    """Barycentric weights, depth and masks of the pixels; marks the texels that they look at with 0."""
    height, width = slots.shape
    for row in range(ids.shape[0]):
        for column in range(ids.shape[1]):
            t = ids[row, column]
            if t < 0:
                continue
            i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            x, y = column + 0.5, row + 0.5
            ax, ay = projected[i, 0] - x, projected[i, 1] - y
            bx, by = projected[j, 0] - x, projected[j, 1] - y
            cx, cy = projected[k, 0] - x, projected[k, 1] - y
            a, b, c = bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx
            sign = 1.0 if a + b + c > 0 else -1.0
            a, b, c = max(sign * a, 1e-20), max(sign * b, 1e-20), max(sign * c, 1e-20)
            total = a + b + c
            a, b, c = a / total, b / total, c / total
            weights[row, column, 0], weights[row, column, 1], weights[row, column, 2] = a, b, c
            mask[row, column] = 1
            skin[row, column] = 1 if skin_triangles[t] else 0
            depth[row, column] = a * projected[i, 2] + b * projected[j, 2] + c * projected[k, 2]
            i, j, k = uv_triangles[t, 0], uv_triangles[t, 1], uv_triangles[t, 2]
            u = a * uv[i, 0] + b * uv[j, 0] + c * uv[k, 0]
            v = a * uv[i, 1] + b * uv[j, 1] + c * uv[k, 1]
            left, right, _, _ = _texel(u, width)
            top, bottom, _, _ = _texel(1 - v, height)
            slots[top, left] = slots[top, right] = slots[bottom, left] = slots[bottom, right] = _MARKED


@njit(cache=True, nogil=True)
def number_texels(slots, seen):
    """Number the marked texels in the order of the texture; returns how many there are."""
    count = 0
    for row in range(slots.shape[0]):
        for column in range(slots.shape[1]):
            if slots[row, column] == _MARKED:
                slots[row, column] = count
                seen[count] = row * slots.shape[1] + column
                count += 1
    return count


@njit(cache=True, nogil=True)
def _light(lighting, bands):
    """The light (3,9) of one face, times the bands' constants."""
    light = np.empty((3, 9), lighting.dtype)
    for d in range(3):
        for k in range(9):
            light[d, k] = lighting[3 * k + d] * bands[k]
    return light


@njit(cache=True, nogil=True)
def _next_block(ids, position, index):
    """Fill index with the next covered pixels from position on; returns how many, and where to go on."""
    count = 0
    while position < ids.shape[0] and count < index.shape[0]:
        if ids[position] >= 0:
            index[count] = position
            count += 1
        position += 1
    return count, position


@njit(cache=True, nogil=True, fastmath=_FAST)
def _surface(
    index, ids, weights, normals, triangles, uv, uv_triangles, height, width, normal, inverse, texel, place
):
    """Unit normals, inverse lengths before that, and where in the texture a block of pixels looks.

    texel (4,N): share of the right and of the lower neighbour; texels per u and v, 0 beyond the border.
    place (2,N): column and row of the upper left neighbour.
    """
    one, half, tiny = normal.dtype.type(1), normal.dtype.type(0.5), normal.dtype.type(1e-24)
    zero = normal.dtype.type(0)
    x, y, z = normal[0], normal[1], normal[2]
    for n in range(len(index)):
        p = index[n]
        t = ids[p]
        a, b, c = weights[p, 0], weights[p, 1], weights[p, 2]
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        x[n] = a * normals[i, 0] + b * normals[j, 0] + c * normals[k, 0]
        y[n] = a * normals[i, 1] + b * normals[j, 1] + c * normals[k, 1]
        z[n] = a * normals[i, 2] + b * normals[j, 2] + c * normals[k, 2]
        i, j, k = uv_triangles[t, 0], uv_triangles[t, 1], uv_triangles[t, 2]
        texel[0, n] = a * uv[i, 0] + b * uv[j, 0] + c * uv[k, 0]
        texel[1, n] = one - (a * uv[i, 1] + b * uv[j, 1] + c * uv[k, 1])
    for n in range(len(index)):
        inverse[n] = one / math.sqrt(x[n] * x[n] + y[n] * y[n] + z[n] * z[n] + tiny)
    for n in range(len(index)):
        x[n] *= inverse[n]
        y[n] *= inverse[n]
        z[n] *= inverse[n]
    for axis, size in ((0, width), (1, height)):
        share, slope, low, count = texel[axis], texel[2 + axis], place[axis], normal.dtype.type(size)
        for n in range(len(index)):
            position = share[n] * count - half
            clamped = min(max(position, zero), count - one)
            whole = np.int32(clamped)
            low[n] = whole
            share[n] = clamped - whole
            slope[n] = count if position == clamped else zero


@njit(cache=True, nogil=True)
def _corners(place, slots, values, found):
    """The 4 texels of 3 colours around each place, (12,N), and where they stand in values, (4,N)."""
    height, width = slots.shape
    corners, where = found
    for n in range(where.shape[1]):
        left, top = place[0, n], place[1, n]
        right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
        p, q, r, s = slots[top, left], slots[top, right], slots[bottom, left], slots[bottom, right]
        where[0, n], where[1, n], where[2, n], where[3, n] = p, q, r, s
        for d in range(3):
            corners[4 * d, n] = values[3 * p + d]
            corners[4 * d + 1, n] = values[3 * q + d]
            corners[4 * d + 2, n] = values[3 * r + d]
            corners[4 * d + 3, n] = values[3 * s + d]


@njit(cache=True, nogil=True, fastmath=_FAST)
def _colours(count, normal, texel, corners, clamp, light, albedo, shading):
    """Albedo and shading (3,N) of a block."""
    zero, one, three = normal.dtype.type(0), normal.dtype.type(1), normal.dtype.type(3)
    x, y, z, fx, fy = normal[0], normal[1], normal[2], texel[0], texel[1]
    if clamp:
        for row in range(12):
            corner = corners[row]
            for n in range(count):
                corner[n] = min(max(corner[n], zero), one)
    for d in range(3):
        p, q, r, s, out = (
            corners[4 * d],
            corners[4 * d + 1],
            corners[4 * d + 2],
            corners[4 * d + 3],
            albedo[d],
        )
        for n in range(count):
            upper = p[n] + (q[n] - p[n]) * fx[n]
            lower = r[n] + (s[n] - r[n]) * fx[n]
            out[n] = upper + (lower - upper) * fy[n]
        out = shading[d]
        m0, m1, m2, m3, m4 = light[d, 0], light[d, 1], light[d, 2], light[d, 3], light[d, 4]
        m5, m6, m7, m8 = light[d, 5], light[d, 6], light[d, 7], light[d, 8]
        for n in range(count):
            linear = m0 + m1 * x[n] + m2 * y[n] + m3 * z[n]
            mixed = m4 * x[n] * y[n] + m5 * x[n] * z[n] + m6 * y[n] * z[n]
            out[n] = linear + mixed + m7 * (x[n] * x[n] - y[n] * y[n]) + m8 * (three * z[n] * z[n] - one)


@njit(cache=True, nogil=True)
def shade(
    ids,
    weights,
    normals,
    lighting,
    values,
    image,
    seen_normals,
    triangles,
    uv,
    uv_triangles,
    slots,
    clamp,
    bands,
):
    kind = weights.dtype
    index, place = np.empty(BLOCK, np.int64), np.empty((2, BLOCK), np.int32)
    normal, inverse, texel = np.empty((3, BLOCK), kind), np.empty(BLOCK, kind), np.empty((4, BLOCK), kind)
    corners, where = np.empty((12, BLOCK), kind), np.empty((4, BLOCK), np.int32)
    albedo, shading = np.empty((3, BLOCK), kind), np.empty((3, BLOCK), kind)
    light = _light(lighting, bands)
    height, width = slots.shape
    position = 0
    while position < len(ids):
        count, position = _next_block(ids, position, index)
        block = index[:count]
        _surface(
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
        _corners(place, slots, values, (corners, where[:, :count]))
        _colours(count, normal, texel, corners, clamp, light, albedo, shading)
        for d in range(3):
            for n in range(count):
                image[d, block[n]] = albedo[d, n] * shading[d, n]
                seen_normals[d, block[n]] = normal[d, n]


@njit(cache=True, nogil=True, fastmath=_FAST)
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


@njit(cache=True, nogil=True, fastmath=_FAST)
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
    light, of_light = _light(lighting, bands), np.zeros((3, 9))
    height, width = slots.shape
    position = 0
    while position < len(ids):
        count, position = _next_block(ids, position, index)
        block = index[:count]
        if has_image or has_normals:
            _surface(
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
                _corners(place, slots, values, (corners, where[:, :count]))
                _colours(count, normal, texel, corners, clamp, light, albedo, shading)
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
