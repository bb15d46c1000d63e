"""Toy training compiled by numba: one instance, many steps, everything inline.

Feature-major chunks of the batch stay in the L1 and L2 caches between the five products of a step.  The products are
tiles of two rows by four columns whose inner loop runs along the batch: eight multiply-adds for six loads, so that the
arithmetic units and not memory are the limit.  Offsets are unsigned because numba gives a signed index a branch for
negative values, which keeps LLVM from vectorising.  Every step is what `gradients.Gradients` and `adamw.AdamW` do in
torch, with the same random numbers; the tests hold the two together.
"""

import math

import numpy as np
from numba import njit

F, U = np.float32, np.uint64
FINISH = np.uint32(0x846CA68B)
INDEPENDENT, SIGNED, CORRELATED, EXCLUSIVE, HIERARCHICAL, FINITE = range(6)
"""How features are drawn (EXCLUSIVE: at most one of a group, which covers anticorrelated and one-active ones)."""
RELU_OUT, RELU_HIDDEN, UNTIED, ABSOLUTE = 1, 2, 4, 8
"""Flags of the model."""
_jit = njit(fastmath=True, nogil=True, cache=True, error_model="numpy")


@_jit
def linear_of_bits(x, to, table, at, size, xor, odd, slope, offset, least):  # type: ignore[no-untyped-def]
    """x = max(offset + slope * integer, least), integers as in `counter.Draws`."""
    to, at = U(to), U(at)
    for i in range(U(size)):
        bits = np.uint32(np.uint32(table[at + i] ^ xor) * odd)
        bits = np.uint32(bits ^ np.uint32(bits >> np.uint32(15)))
        value = offset + F(np.int32(np.uint32(bits * FINISH))) * slope
        x[to + i] = value if value > least else least


@_jit
def draw(x, gate, kind, law, group, keys, step, table, start, size, width):  # type: ignore[no-untyped-def]
    """One chunk of features; `law` holds p and where a member's slice of its gate begins, both one a feature."""
    probability, below, signed = law
    n, batch = len(probability), len(table) // len(probability)
    unit, half, low = F(2.0**-32), F(0.5), F(-3e38)
    one, zero, two = F(1), F(0), F(2)
    if kind in (CORRELATED, EXCLUSIVE):
        for k in range(n // group):
            linear_of_bits(
                gate, k * width, table, k * batch + start, size, keys[1, step, 0], keys[1, step, 1], unit, half, low
            )
    if kind == EXCLUSIVE:
        for i in range(n):
            to, own, p, floor = U(i * width), U(i // group * width), probability[i], below[i]
            for s in range(U(size)):
                share = (gate[own + s] - floor) / p
                value = two * share - one if signed else one - share
                x[to + s] = value if share >= zero and share < one else zero
        return
    for i in range(n):
        p = probability[i]
        xor, odd = keys[0, step, 0], keys[0, step, 1]
        if kind == CORRELATED or signed:
            linear_of_bits(x, i * width, table, i * batch + start, size, xor, odd, unit, half, low)
        else:
            slope, offset = -unit / p, one - half / p
            linear_of_bits(x, i * width, table, i * batch + start, size, xor, odd, slope, offset, zero)
        to = U(i * width)
        if kind == CORRELATED:
            own = U(i // group * width)
            for s in range(U(size)):
                u = x[to + s]
                value = two * u - one if signed else one - u
                x[to + s] = value if gate[own + s] < p else zero
        elif signed:
            for s in range(U(size)):
                centred = two * x[to + s] - one
                value = one - abs(centred) / p
                value = value if value > zero else zero
                x[to + s] = value if centred > zero else -value
        if kind == HIERARCHICAL and i % group > 0:
            own = U(i // group * group * width)
            for s in range(U(size)):
                x[to + s] = x[to + s] if x[own + s] != zero else zero


@_jit
def product(out, source, w, row, column, rows, columns, size, width, bias, biased):  # type: ignore[no-untyped-def]
    """out[r] = bias[r] + sum_c w[r * row + c * column] source[c] along the batch."""
    for r in range(0, rows - 1, 2):
        o0, o1 = U(r * width), U((r + 1) * width)
        b0, b1 = (bias[r], bias[r + 1]) if biased else (F(0), F(0))
        for s in range(U(size)):
            out[o0 + s] = b0
            out[o1 + s] = b1
        c = 0
        while c < columns:
            a = r * row + c * column
            d = a + row
            s0 = U(c * width)
            if c + 4 <= columns:
                s1, s2, s3 = U((c + 1) * width), U((c + 2) * width), U((c + 3) * width)
                w00, w01, w02, w03 = w[a], w[a + column], w[a + 2 * column], w[a + 3 * column]
                w10, w11, w12, w13 = w[d], w[d + column], w[d + 2 * column], w[d + 3 * column]
                for s in range(U(size)):
                    x0, x1, x2, x3 = source[s0 + s], source[s1 + s], source[s2 + s], source[s3 + s]
                    out[o0 + s] += w00 * x0 + w01 * x1 + w02 * x2 + w03 * x3
                    out[o1 + s] += w10 * x0 + w11 * x1 + w12 * x2 + w13 * x3
                c += 4
            else:
                w00, w10 = w[a], w[d]
                for s in range(U(size)):
                    x0 = source[s0 + s]
                    out[o0 + s] += w00 * x0
                    out[o1 + s] += w10 * x0
                c += 1
    if rows % 2:
        r = rows - 1
        o0 = U(r * width)
        b0 = bias[r] if biased else F(0)
        for s in range(U(size)):
            out[o0 + s] = b0
        c = 0
        while c < columns:
            a = r * row + c * column
            s0 = U(c * width)
            if c + 4 <= columns:
                s1, s2, s3 = U((c + 1) * width), U((c + 2) * width), U((c + 3) * width)
                w00, w01, w02, w03 = w[a], w[a + column], w[a + 2 * column], w[a + 3 * column]
                for s in range(U(size)):
                    half = w00 * source[s0 + s] + w01 * source[s1 + s]
                    out[o0 + s] += half + w02 * source[s2 + s] + w03 * source[s3 + s]
                c += 4
            else:
                w00 = w[a]
                for s in range(U(size)):
                    out[o0 + s] += w00 * source[s0 + s]
                c += 1


@_jit
def output_error(out, x, db, scale, flags, n, size, width):  # type: ignore[no-untyped-def]
    """Turns pre-activations into g = dL/d(pre-activation), adds its sums to `db`; the chunk's share of the loss."""
    loss = 0.0
    clip, absolute = flags & RELU_OUT != 0, flags & ABSOLUTE != 0
    for i in range(n):
        to, weight = U(i * width), scale[i]
        total, square = F(0), F(0)
        for s in range(U(size)):
            z, t = out[to + s], x[to + s]
            t = abs(t) if absolute else t
            alive = z > F(0) or not clip
            r = (z if alive else F(0)) - t
            square += r * r
            g = r * weight if alive else F(0)
            total += g
            out[to + s] = g
        db[i] += total
        loss += square * weight
    return loss / 2


@_jit
def clamp(h, total):  # type: ignore[no-untyped-def]
    """h = relu(h)."""
    for s in range(U(total)):
        h[s] = h[s] if h[s] > F(0) else F(0)


@_jit
def mask(e, h, total):  # type: ignore[no-untyped-def]
    """e = e [h > 0]."""
    for s in range(U(total)):
        e[s] = e[s] if h[s] > F(0) else F(0)


@_jit
def outer(d, a, b, m, n, size, width):  # type: ignore[no-untyped-def]
    """d += a b^T, summed along the batch (untied models)."""
    for j in range(m):
        a0 = U(j * width)
        for i in range(n):
            b0 = U(i * width)
            t = F(0)
            for s in range(U(size)):
                t += a[a0 + s] * b[b0 + s]
            d[j * n + i] += t


@_jit
def outer_pair(d, h, g, e, x, m, n, size, width):  # type: ignore[no-untyped-def]
    """d += h g^T + e x^T, summed along the batch: both halves of a tied gradient in one pass."""
    for j in range(0, m - 1, 2):
        a0, a1 = U(j * width), U((j + 1) * width)
        i = 0
        while i < n:
            b0 = U(i * width)
            q = j * n + i
            if i + 4 <= n:
                b1, b2, b3 = U((i + 1) * width), U((i + 2) * width), U((i + 3) * width)
                t00, t01, t02, t03 = F(0), F(0), F(0), F(0)
                t10, t11, t12, t13 = F(0), F(0), F(0), F(0)
                for s in range(U(size)):
                    h0, h1, e0, e1 = h[a0 + s], h[a1 + s], e[a0 + s], e[a1 + s]
                    g0, g1, g2, g3 = g[b0 + s], g[b1 + s], g[b2 + s], g[b3 + s]
                    x0, x1, x2, x3 = x[b0 + s], x[b1 + s], x[b2 + s], x[b3 + s]
                    t00 += h0 * g0 + e0 * x0
                    t01 += h0 * g1 + e0 * x1
                    t02 += h0 * g2 + e0 * x2
                    t03 += h0 * g3 + e0 * x3
                    t10 += h1 * g0 + e1 * x0
                    t11 += h1 * g1 + e1 * x1
                    t12 += h1 * g2 + e1 * x2
                    t13 += h1 * g3 + e1 * x3
                d[q] += t00
                d[q + 1] += t01
                d[q + 2] += t02
                d[q + 3] += t03
                d[q + n] += t10
                d[q + n + 1] += t11
                d[q + n + 2] += t12
                d[q + n + 3] += t13
                i += 4
            else:
                t00, t10 = F(0), F(0)
                for s in range(U(size)):
                    g0, x0 = g[b0 + s], x[b0 + s]
                    t00 += h[a0 + s] * g0 + e[a0 + s] * x0
                    t10 += h[a1 + s] * g0 + e[a1 + s] * x0
                d[q] += t00
                d[q + n] += t10
                i += 1
    if m % 2:
        j = m - 1
        a0 = U(j * width)
        i = 0
        while i < n:
            b0 = U(i * width)
            q = j * n + i
            if i + 4 <= n:
                b1, b2, b3 = U((i + 1) * width), U((i + 2) * width), U((i + 3) * width)
                t00, t01, t02, t03 = F(0), F(0), F(0), F(0)
                for s in range(U(size)):
                    h0, e0 = h[a0 + s], e[a0 + s]
                    t00 += h0 * g[b0 + s] + e0 * x[b0 + s]
                    t01 += h0 * g[b1 + s] + e0 * x[b1 + s]
                    t02 += h0 * g[b2 + s] + e0 * x[b2 + s]
                    t03 += h0 * g[b3 + s] + e0 * x[b3 + s]
                d[q] += t00
                d[q + 1] += t01
                d[q + 2] += t02
                d[q + 3] += t03
                i += 4
            else:
                t00 = F(0)
                for s in range(U(size)):
                    t00 += h[a0 + s] * g[b0 + s] + e[a0 + s] * x[b0 + s]
                d[q] += t00
                i += 1


@_jit
def adamw(w, g, first, second, rate, decay, t):  # type: ignore[no-untyped-def]
    """AdamW step number `t`, as in `adamw.AdamW`; empties `g`."""
    shrink = F(1 - rate * decay)
    length, root = F(rate / (1 - 0.9**t)), F(1 / (1 - 0.999**t))
    for i in range(U(len(w))):
        d = g[i]
        a = first[i] + F(0.1) * (d - first[i])
        v = F(0.999) * second[i] + F(0.001) * d * d
        first[i], second[i], g[i] = a, v, F(0)
        w[i] = w[i] * shrink - length * a / (math.sqrt(v * root) + F(1e-8))


@_jit
def gradient(params, grads, work, x, scale, flags, shape, size, width):  # type: ignore[no-untyped-def]
    """Adds the gradient of one chunk `x` to `grads`; the chunk's share of the loss."""
    m, n = shape
    h, out, e = work
    w, b = params[: m * n], params[len(params) - n :]
    dw, db = grads[: m * n], grads[len(params) - n :]
    untied = flags & UNTIED != 0
    v = params[m * n : 2 * m * n] if untied else w
    product(h, x, w, n, 1, m, n, size, width, b, False)
    if flags & RELU_HIDDEN:
        clamp(h, m * width)
    product(out, h, v, 1, n, n, m, size, width, b, True)
    loss = output_error(out, x, db, scale, flags, n, size, width)
    product(e, out, v, n, 1, m, n, size, width, b, False)
    if flags & RELU_HIDDEN:
        mask(e, h, m * width)
    if untied:
        outer(grads[m * n : 2 * m * n], h, out, m, n, size, width)
        outer(dw, e, x, m, n, size, width)
    else:
        outer_pair(dw, h, out, e, x, m, n, size, width)
    return loss


@_jit
def run(params, first, second, shape, flags, scale, kind, law, group, keys, table, points, rates, decay, start, width):  # type: ignore[no-untyped-def]
    """Train one instance for len(rates) steps from step `start`; the sum of its batch losses.

    `params`, `first`, `second` are flat (W, V if untied, b) and change in place.  `keys` (2, steps, 2): values, gates.
    """
    m, n = shape
    samples = points.shape[1] if kind == FINITE else len(table) // n
    x, gate, out = np.zeros(n * width, F), np.zeros(n * width, F), np.zeros(n * width, F)
    h, e = np.zeros(m * width, F), np.zeros(m * width, F)
    grads = np.zeros(len(params), F)
    total = 0.0
    for step in range(len(rates)):
        for at in range(0, samples, width):
            size = min(width, samples - at)
            if kind == FINITE:
                for i in range(n):
                    x[i * width : i * width + size] = points[i, at : at + size]
            else:
                draw(x, gate, kind, law, group, keys, step, table, at, size, width)
            total += gradient(params, grads, (h, out, e), x, scale, flags, shape, size, width)
        adamw(params, grads, first, second, rates[step], decay, start + step + 1)
    return total
