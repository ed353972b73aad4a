# mypy: ignore-errors
# The bodies are in Triton's language, which only looks like Python.
"""All pairs of sources, which are resampled, and targets: distances, weights, and gradients.

A launch sees a chunk: steps `first_step` … of the targets, and `count` sources from `first` on. Packed for it, zero
where there is none (rows_kernels.pack_rows):

    rows     (groups, steps_here, height, width): sources, resampled to the length that the targets of a group have
    columns  (steps_here, breadth, width): targets in `order` (breadth,), -1 where there is none

A row i is a source of the chunk, a column j a target. Targets of one length are a group and begin a tile, so that tiles
are whole and of one group, and nothing within a loop needs a mask. Tables of groups, the last one empty, for tiles that
are not needed: group_length (groups + 1,), group_tile (groups + 2,) first tiles, tile_group (tiles,). `stride_i`,
`stride_j` are those of results and their gradients, in elements, by index of source and target.
"""

import triton
import triton.language as tl

from scav_kernels._triton.rows_kernels import resampled, rounded_to_tf32, takes

# Where ‖x‖² + ‖y‖² − 2⟨x, y⟩ is below this share of the norms, start from x − y: kNear of csrc/shared/constants.h.
NEAR = tl.constexpr(1 / 256)
# Row tiles that run side by side, so that their targets stay in L2.
BAND = tl.constexpr(16)


@triton.jit
def tile_at(program, tiles_i, tiles_j):
    """Tiles in bands of rows, column by column."""
    first = program // (BAND * tiles_j) * BAND
    height = tl.minimum(tiles_i - first, BAND)
    within = program % (BAND * tiles_j)
    return first + within % height, within // height


@triton.jit
def squares_of_near(
    square, near, first, count, target_at, t, m, source, source_lengths, source_steps, features, BLOCK: tl.constexpr
):
    """`square` (I, J) with the cells that are `near` taken from differences of the rows as given.

    One near cell of every column at a time: of a batch against itself, that is all of them at once.
    """
    ACC: tl.constexpr = square.dtype
    i = tl.arange(0, square.shape[0])
    left = near.to(tl.int32)
    while tl.max(left) > 0:
        row = tl.argmax(left, 0)
        # A column without near cells takes any row.
        b = first + tl.minimum(row, count - 1)
        n = tl.load(source_lengths + b)
        found = tl.zeros((square.shape[1],), ACC)
        for start in range(0, features, BLOCK):
            k = start + tl.arange(0, BLOCK)
            step = resampled(source, b, t, n, m, k, source_steps, features, ACC)
            step -= tl.load(target_at[:, None] + k[None, :], mask=(k < features)[None, :], other=0).to(ACC)
            found += tl.sum(step * step, 1)
        hit = (left > 0) & (i[:, None] == row[None, :])
        square = tl.where(hit, found[None, :], square)
        left = tl.where(hit, 0, left)
    return square


@triton.jit
def add_distances(
    out,  # (splits, B1, B2) by strides: sums over the steps so far; added to but at the first step
    near_tiles,  # (splits, tiles_i, tiles_j): whether the fast way left a tile to the careful one
    rows,
    row_norms,
    columns,
    column_norms,
    source,
    source_lengths,
    target,
    order,
    group_length,
    tile_group,
    first_step,
    steps_here,
    first,
    count,
    height,
    breadth,
    targets,
    source_steps,
    target_steps,
    features,
    width,
    stride_i,
    stride_j,
    stride_split,
    TAKES: tl.constexpr,
    SQUARED: tl.constexpr,
    SORTED: tl.constexpr,
    CAREFUL: tl.constexpr,
    PRECISION: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    PARTS: tl.constexpr,
):
    """A tile, or one of its PARTS of BN columns, at the split's share of the chunk's steps.

    Columns are all targets in turn unless SORTED. Where a tile has near cells, the fast way leaves it as it was, and
    the CAREFUL way, launched next, adds to it: in one kernel, a loop over near cells would keep the compiler from
    overlapping loads with products.
    """
    ACC: tl.constexpr = row_norms.dtype.element_ty
    tiles_i = height // BM
    tiles_j = breadth // (BN * PARTS)
    tile = tl.program_id(0) // PARTS
    ti, tj = tile_at(tile, tiles_i, tiles_j)
    split = tl.program_id(1).to(tl.int64)
    flag = near_tiles + split * tiles_i * tiles_j + tile
    if CAREFUL and tl.load(flag) == 0:
        return
    group = tl.load(tile_group + tj)
    m = tl.load(group_length + group)
    share = tl.cdiv(steps_here, tl.num_programs(1))
    begin = split * share
    steps = tl.maximum(tl.minimum(begin + share, tl.minimum(steps_here, m - first_step)) - begin, 0).to(tl.int32)

    i = (ti * BM + tl.arange(0, BM)).to(tl.int64)
    j = ((tj * PARTS + tl.program_id(0) % PARTS) * BN + tl.arange(0, BN)).to(tl.int64)
    k = tl.arange(0, BK)
    row_at = rows + i[:, None] * width + k[None, :]
    column_at = columns + j[:, None] * width + k[None, :]
    blocks = width // BK
    slot = group * steps_here + begin
    total = tl.zeros((BM, BN), ACC)
    product = tl.zeros((BM, BN), ACC)
    near_rows = tl.zeros((BM,), tl.int32)
    # One loop over steps and features, so that the next step's loads overlap this step's root.
    for turn in range(steps * blocks):
        t = turn // blocks
        part = turn % blocks
        x = tl.load(row_at + (slot + t) * height * width + part * BK)
        y = tl.load(column_at + (begin + t) * breadth * width + part * BK)
        product = tl.dot(x, tl.trans(y), product, input_precision=PRECISION, out_dtype=ACC)
        if part == blocks - 1:
            norms = tl.load(row_norms + (slot + t) * height + i)[:, None]
            norms += tl.load(column_norms + (begin + t) * breadth + j)[None, :]
            square = norms - 2 * product
            near = square < NEAR * norms
            if CAREFUL:
                step = first_step + begin + t
                b = tl.maximum(tl.load(order + j), 0)
                square = squares_of_near(
                    square,
                    near,
                    first + ti * BM,
                    count - ti * BM,
                    target + (b * target_steps + step) * features,
                    step,
                    m,
                    source,
                    source_lengths,
                    source_steps,
                    features,
                    16,
                )
            else:
                near_rows = tl.maximum(near_rows, tl.max(near.to(tl.int32), 1))
            square = tl.maximum(square, 0)
            total += square if SQUARED else tl.sqrt(square)
            product = tl.zeros((BM, BN), ACC)

    inside = (i < count)[:, None] & (j < targets)[None, :]
    b = j
    if SORTED:
        b = tl.load(order + j)
        inside = (i < count)[:, None] & (b >= 0)[None, :]
    if not CAREFUL:
        found = tl.max(near_rows, 0)
        tl.store(flag, found.to(tl.int8))
        inside = inside & (found == 0)
    inside = inside & takes(tl.load(source_lengths + first + i, mask=i < count, other=1)[:, None], m, TAKES)
    at = out + split * stride_split + (first + i)[:, None] * stride_i + b[None, :] * stride_j
    tl.store(at, total + tl.load(at, mask=inside & (first_step > 0), other=0), mask=inside)


@triton.jit
def finish_distances(
    out,
    sums,
    source_lengths,
    target_lengths,
    source_nonfinite,
    target_nonfinite,
    B1,
    B2,
    splits,
    stride_i,
    stride_j,
    stride_split,
    TAKES: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """Means of the splits' `sums`, which may be `out` itself; inf or NaN of pairs of such a sequence."""
    tiles_j = tl.cdiv(B2, BN)
    i = (tl.program_id(0) // tiles_j * BM + tl.arange(0, BM)).to(tl.int64)
    j = (tl.program_id(0) % tiles_j * BN + tl.arange(0, BN)).to(tl.int64)
    inside = (i < B1)[:, None] & (j < B2)[None, :]
    n = tl.load(source_lengths + i, mask=i < B1, other=1)
    m = tl.load(target_lengths + j, mask=j < B2, other=1)
    inside = inside & takes(n[:, None], m[None, :], TAKES)
    at = i[:, None] * stride_i + j[None, :] * stride_j
    total = tl.zeros((BM, BN), out.dtype.element_ty)
    for split in range(splits):
        total += tl.load(sums + split * stride_split + at, mask=inside, other=0)
    nonfinite = tl.load(source_nonfinite + i, mask=i < B1, other=0)[:, None]
    nonfinite += tl.load(target_nonfinite + j, mask=j < B2, other=0)[None, :]
    mean = total / m[None, :].to(out.dtype.element_ty)
    tl.store(out + at, tl.where(nonfinite == 0, mean, nonfinite), mask=inside)


@triton.jit
def pack_shares(
    shares,  # (padded, breadth), of whole tiles of sources
    grad,
    source_lengths,
    target_lengths,
    source_nonfinite,
    target_nonfinite,
    order,
    sources,
    padded,
    breadth,
    stride_i,
    stride_j,
    TAKES: tl.constexpr,
    SQUARED: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """The gradient of one step's distance, targets in `order`: 0 where a pair is left out or not finite."""
    tiles_j = tl.cdiv(breadth, BN)
    i = (tl.program_id(0) // tiles_j * BM + tl.arange(0, BM)).to(tl.int64)
    j = (tl.program_id(0) % tiles_j * BN + tl.arange(0, BN)).to(tl.int64)
    b = tl.load(order + j, mask=j < breadth, other=-1)
    inside = (i < padded)[:, None] & (j < breadth)[None, :]
    exists = (i < sources)[:, None] & (b >= 0)[None, :]
    b = tl.maximum(b, 0)
    n = tl.load(source_lengths + i, mask=i < sources, other=1)
    m = tl.load(target_lengths + b)
    nonfinite = (
        tl.load(source_nonfinite + i, mask=i < sources, other=0)[:, None] + tl.load(target_nonfinite + b)[None, :]
    )
    taken = exists & (nonfinite == 0) & takes(n[:, None], m[None, :], TAKES)
    given = tl.load(grad + i[:, None] * stride_i + b[None, :] * stride_j, mask=taken, other=0)
    share = given / m[None, :].to(shares.dtype.element_ty)
    if SQUARED:
        share *= 2
    tl.store(shares + i[:, None] * breadth + j[None, :], share, mask=inside)


@triton.jit
def find_weights(
    weights,  # (steps_here, height, breadth): 0 where near
    row_sums,  # (steps_here, height, tiles_j): of a tile's weights
    column_sums,  # (steps_here, breadth, tiles_i)
    near_tiles,  # (steps_here, tiles_i, tiles_j): whether a tile has near cells
    shares,
    rows,
    row_norms,
    columns,
    column_norms,
    group_length,
    tile_group,
    first_step,
    steps_here,
    first,
    height,
    breadth,
    width,
    SQUARED: tl.constexpr,
    PRECISION: tl.constexpr,
    TF32: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """A tile at one step: with weights w, dx̃_i = Σ_j w_ij (x̃_i − y_j) and dy_j = Σ_i w_ij (y_j − x̃_i)."""
    ACC: tl.constexpr = row_norms.dtype.element_ty
    tiles_i = height // BM
    tiles_j = breadth // BN
    ti, tj = tile_at(tl.program_id(0) % (tiles_i * tiles_j), tiles_i, tiles_j)
    t = (tl.program_id(0) // (tiles_i * tiles_j)).to(tl.int64)
    group = tl.load(tile_group + tj)
    if first_step + t >= tl.load(group_length + group):
        return

    slot = group * steps_here + t
    i = (ti * BM + tl.arange(0, BM)).to(tl.int64)
    j = (tj * BN + tl.arange(0, BN)).to(tl.int64)
    k = tl.arange(0, BK)
    row_at = rows + (slot * height + i)[:, None] * width + k[None, :]
    column_at = columns + (t * breadth + j)[:, None] * width + k[None, :]
    product = tl.zeros((BM, BN), ACC)
    for part in range(width // BK):
        x = tl.load(row_at + part * BK)
        y = tl.load(column_at + part * BK)
        product = tl.dot(x, tl.trans(y), product, input_precision=PRECISION, out_dtype=ACC)

    norms = tl.load(row_norms + slot * height + i)[:, None] + tl.load(column_norms + t * breadth + j)[None, :]
    square = norms - 2 * product
    # Offsets within a tile fit 32 bits, and take half the registers.
    cell = tl.arange(0, BM)[:, None] * breadth + tl.arange(0, BN)[None, :]
    corner = (ti * BM).to(tl.int64) * breadth + tj * BN
    share = tl.load(shares + first.to(tl.int64) * breadth + corner + cell)
    near = (square < NEAR * norms) & (share != 0)
    # A cell of weight 0 from here on, near or not, is out of the sums and products.
    square = tl.where(near | (square <= 0), float("inf"), square)
    tl.store(near_tiles + (t * tiles_i + ti) * tiles_j + tj, tl.max(near.to(tl.int32)).to(tl.int8))
    weight = tl.where(square < float("inf"), share, 0) if SQUARED else share * tl.rsqrt(square)
    weight = weight.to(weights.dtype.element_ty)
    if TF32:
        weight = rounded_to_tf32(weight)
    tl.store(weights + t * height * breadth + corner + cell, weight)

    # Sums of the weights as the products will read them.
    weight = weight.to(ACC)
    tl.store(row_sums + (t * height + i) * tiles_j + tj, tl.sum(weight, 1))
    tl.store(column_sums + (t * breadth + j) * tiles_i + ti, tl.sum(weight, 0))


@triton.jit
def add_products(
    out,  # of targets: (B2, target_steps, features), added to; else (groups, steps_here, height, width)
    weights,
    sums,  # column_sums, or row_sums
    rows,
    columns,
    order,
    group_length,
    group_tile,
    tile_group,
    first_step,
    steps_here,
    height,
    breadth,
    target_steps,
    features,
    width,
    OF_TARGETS: tl.constexpr,
    PRECISION: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    BD: tl.constexpr,
):
    """Gradients of one side's rows a at one step, from their weights against the other side's rows b:

    Σ_b w_ab row_a − Σ_b w_ab row_b. With OF_TARGETS, a are a tile's BN columns and b all rows of their group; else a
    are BM rows of one group, and b its columns.
    """
    ACC: tl.constexpr = out.dtype.element_ty
    BA: tl.constexpr = BN if OF_TARGETS else BM
    tiles_i = height // BM
    tiles_j = breadth // BN
    tiles = tiles_j if OF_TARGETS else tiles_i
    parts = tl.cdiv(width, BD)
    d = tl.program_id(0) % parts * BD + tl.arange(0, BD)
    tile = tl.program_id(0) // parts % tiles
    slot = (tl.program_id(0) // parts // tiles).to(tl.int64)
    t = slot % steps_here
    group = tl.load(tile_group + tile) if OF_TARGETS else slot // steps_here
    if first_step + t >= tl.load(group_length + group):
        return

    a = (tile * BA + tl.arange(0, BA)).to(tl.int64)
    b = tl.arange(0, BK)
    source_rows = rows + (group * steps_here + t) * height * width
    target_rows = columns + t * breadth * width
    if OF_TARGETS:
        first_tile, end_tile = 0, tiles_i
        own = target_rows
        other = source_rows + (b.to(tl.int64) * width)[:, None] + d[None, :]
        cell = weights + t * height * breadth + a[:, None] + (b.to(tl.int64) * breadth)[None, :]
        b_stride = breadth
        sum_at = sums + (t * breadth + a) * tiles_i
    else:
        first_tile = tl.load(group_tile + group).to(tl.int32)
        end_tile = tl.load(group_tile + group + 1).to(tl.int32)
        begin = first_tile.to(tl.int64) * BN
        own = source_rows
        other = target_rows + ((begin + b) * width)[:, None] + d[None, :]
        cell = weights + (t * height + a)[:, None] * breadth + (begin + b)[None, :]
        b_stride = 1
        sum_at = sums + (t * height + a) * tiles_j

    inside = d < width
    product = tl.zeros((BA, BD), ACC)
    for _ in range((end_tile - first_tile) * ((BM if OF_TARGETS else BN) // BK)):
        w = tl.load(cell)
        v = tl.load(other, mask=inside[None, :], other=0).to(w.dtype)
        product = tl.dot(w, v, product, input_precision=PRECISION, out_dtype=ACC)
        cell += BK * b_stride
        other += BK * width

    weight = tl.zeros((BA,), ACC)
    for tile_b in range(first_tile, end_tile):
        weight += tl.load(sum_at + tile_b)
    result = tl.load(own + a[:, None] * width + d[None, :], mask=inside[None, :], other=0).to(ACC)
    result = weight[:, None] * result - product
    if OF_TARGETS:
        target = tl.load(order + a)
        at = out + ((target * target_steps + first_step + t) * features)[:, None] + d[None, :]
        mask = (target >= 0)[:, None] & (d < features)[None, :]
        result += tl.load(at, mask=mask, other=0)
    else:
        at = out + (slot * height + a)[:, None] * width + d[None, :]
        mask = inside[None, :]
    tl.store(at, result, mask=mask)


@triton.jit
def add_near(
    out,
    weights,
    near_tiles,
    shares,
    source,
    source_lengths,
    target,
    order,
    group_length,
    group_tile,
    tile_group,
    first_step,
    steps_here,
    first,
    count,
    height,
    breadth,
    source_steps,
    target_steps,
    features,
    width,
    OF_TARGETS: tl.constexpr,
    SQUARED: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BA: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add to `out`, as add_products does, what find_weights left out, from differences of the rows as given.

    They are those of a tile with near cells whose weight is 0 and whose share is not. A program has BA rows of a tile,
    and redoes one cell of each at a time: of a batch against itself, that is all of them at once.
    """
    ACC: tl.constexpr = out.dtype.element_ty
    BB: tl.constexpr = BM if OF_TARGETS else BN
    tiles_i = height // BM
    tiles_j = breadth // BN
    parts = (breadth if OF_TARGETS else height) // BA
    part = tl.program_id(0) % parts
    tile = part * BA // (BN if OF_TARGETS else BM)
    slot = (tl.program_id(0) // parts).to(tl.int64)
    t = slot % steps_here
    group = tl.load(tile_group + tile) if OF_TARGETS else slot // steps_here
    m = tl.load(group_length + group)
    step = first_step + t
    if step >= m:
        return

    a = (part * BA + tl.arange(0, BA)).to(tl.int64)
    if OF_TARGETS:
        first_tile, end_tile = 0, tiles_i
        out_at = out + (tl.maximum(tl.load(order + a), 0) * target_steps + step) * features
    else:
        first_tile, end_tile = tl.load(group_tile + group), tl.load(group_tile + group + 1)
        out_at = out + (slot * height + a) * width
    for tile_b in range(first_tile, end_tile):
        if OF_TARGETS:
            flag = tl.load(near_tiles + (t * tiles_i + tile_b) * tiles_j + tile)
        else:
            flag = tl.load(near_tiles + (t * tiles_i + tile) * tiles_j + tile_b)
        if flag != 0:
            # Offsets within a tile fit 32 bits, and take half the registers.
            own, other = tl.arange(0, BA)[:, None], tl.arange(0, BB)[None, :]
            cell = other * breadth + own if OF_TARGETS else own * breadth + other
            i0, j0 = (tile_b * BM, part * BA) if OF_TARGETS else (part * BA, tile_b * BN)
            share = tl.load(shares + (first + i0).to(tl.int64) * breadth + j0 + cell)
            weight = tl.load(weights + (t * height + i0) * breadth + j0 + cell)
            left = ((weight == 0) & (share != 0)).to(tl.int32)
            while tl.max(left) > 0:
                found = tl.max(left, 1) > 0
                at = tl.argmax(left, 1)
                left = tl.where(tl.arange(0, BB)[None, :] == at[:, None], 0, left)
                partner = (tile_b * BB + at).to(tl.int64)
                # Of rows without a near cell anything that exists.
                row = tl.minimum(partner if OF_TARGETS else a, count - 1)
                column = a if OF_TARGETS else partner
                factor = tl.load(shares + (first + row) * breadth + column, mask=found, other=0)
                n = tl.load(source_lengths + first + row)
                target_at = target + (tl.maximum(tl.load(order + column), 0) * target_steps + step) * features
                if not SQUARED:
                    square = tl.zeros((BA,), ACC)
                    for start in range(0, features, BLOCK):
                        k = start + tl.arange(0, BLOCK)
                        apart = resampled(source, first + row, step, n, m, k, source_steps, features, ACC)
                        apart -= tl.load(target_at[:, None] + k[None, :], mask=(k < features)[None, :], other=0).to(ACC)
                        square += tl.sum(apart * apart, 1)
                    factor = tl.where(square > 0, factor / tl.sqrt(square), 0)
                for start in range(0, features, BLOCK):
                    k = start + tl.arange(0, BLOCK)
                    apart = resampled(source, first + row, step, n, m, k, source_steps, features, ACC)
                    apart -= tl.load(target_at[:, None] + k[None, :], mask=(k < features)[None, :], other=0).to(ACC)
                    pull = factor[:, None] * apart
                    mask = found[:, None] & (k < features)[None, :]
                    sum = tl.load(out_at[:, None] + k[None, :], mask=mask, other=0)
                    tl.store(out_at[:, None] + k[None, :], sum - pull if OF_TARGETS else sum + pull, mask=mask)
                # Another thread may read what this one wrote.
                tl.debug_barrier()
