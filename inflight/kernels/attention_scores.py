"""What happens to attention's scores before the softmax, the same in both phases."""

import triton
import triton.language as tl


@triton.jit
def adjusted_scores(products, scale, soft_cap, slope, distance, SCORES: tl.constexpr):
    """products [queries, keys] → scores times log2(e), for exp2. distance is the keys' position less the queries', as
    [keys] or [queries, keys], slope [queries]."""
    LOG2_E: tl.constexpr = 1.4426950408889634
    if SCORES == "soft_cap":
        # cap * tanh(x) by exp, which has no worse a relative error near 0 than bfloat16 products have.
        x = products * (scale / soft_cap)
        return soft_cap * LOG2_E * (1.0 - 2.0 / (1.0 + tl.exp(2.0 * x)))
    elif SCORES == "alibi":
        return (products * scale + slope[:, None] * distance.to(tl.float32)) * LOG2_E
    else:
        tl.static_assert(SCORES == "plain")
        return products * (scale * LOG2_E)
