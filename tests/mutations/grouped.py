"""grouped."""

from __future__ import annotations

MUTATIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "src/kernels/grouped.inl.hpp": (
        (
            "if (tap_row < 0 || «tap_row >= kKernel») continue;",
            "tap_row > kKernel",
            "a row beyond the kernel counts",
        ),
        (
            "if (tap < 0 || «tap >= kKernel») continue;",
            "tap > kKernel",
            "a column beyond the kernel counts",
        ),
        (
            "b.bias != nullptr ? load(«b.bias + channel») : zero<T>();",
            "b.bias",
            "all vectors get the first one's bias",
        ),
        (
            "const int lanes = static_cast<int>(«left < span ? left : span»);",
            "span",
            "the last vector of groups is taken whole",
        ),
        (
            "finished<T>(b.store, «sum[k] + total[k]»), lanes);",
            "sum[k]",
            "long sums lose all but their last chain",
        ),
        (
            "if («p.terms > kMaxChain») result = result + total[m][v];",
            "false",
            "lanes of pixels: long sums lose all but their last chain",
        ),
        (
            "store_upto<T>(at, result, «p.vector_counts[first + v]»);",
            "kLanes<T>",
            "lanes of pixels: the last vector of a row is written whole",
        ),
        (
            "p.bias != nullptr ? broadcast(«p.bias[channel + m]») : zero<T>();",
            "p.bias[channel]",
            "lanes of pixels: a block gets its first channel's bias",
        ),
        (
            "for (std::int64_t n = 0; «n < p.row_length»; n += kLanes<T>)",
            "n < 0",
            "rows of padding are not cleared",
        ),
        (
            "«left < kGroupedChannelBlock ? static_cast<int>(left) : kGroupedChannelBlock», p,",
            "kGroupedChannelBlock",
            "the last block of channels is taken whole",
        ),
    ),
    "src/grouped/channels_last.cpp": (
        (
            "*pixels++ = «h < 0 || w < 0» ? zeros :",
            "h < 0",
            "columns of padding are read",
        ),
        (
            "return «lane < span_ && channel < channels_» ? channel : -1;",
            "lane < span_",
            "weights of channels that do not exist are read",
        ),
    ),
    "src/grouped/channels_first.cpp": (
        (
            "«static_cast<std::int32_t>(std::min(lanes, columns.count - w))»);",
            "static_cast<std::int32_t>(lanes)",
            "the last vector of a row counts as whole",
        ),
        (
            "«h < 0» || plane < 0 ? -1",
            "false",
            "rows of padding between planes are read",
        ),
    ),
}
