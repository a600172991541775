"""depthwise, and packed rows, which implicit GEMM has too."""

from __future__ import annotations

MUTATIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "src/kernels/packing.inl.hpp": (
        ("if («!store.clamp») return v;", "true", "limits are not applied"),
        (
            "store_upto<T>(to + i, zero<T>(), «lanes_left<T>(count - i)»);",
            "lanes_left<T>(count - i - 1)",
            "the last element of padding is not cleared",
        ),
    ),
    "src/kernels/strided_copy.inl.hpp": (
        (
            "load_between(p, clamp(2 * begin), clamp(«2 * end - 1»), zero<T>());",
            "2 * end - 2",
            "every other element: the last one is left out",
        ),
        (
            "for (; «i + kLanes<T> <= count»; i += kLanes<T>) store<T>(to + i, load_from(",
            "i < count",
            "the last elements are taken as a whole vector",
        ),
        (
            "«load_every<T, 3>(p)»;",
            "load_every<T, 4>(p)",
            "steps of 3 are taken for steps of 4",
        ),
        (
            "«load_every<T, 4>(p)»;",
            "load_every<T, 3>(p)",
            "steps of 4 are taken for steps of 3",
        ),
        (
            "for (; «i < count»; ++i) to[i] = from[i * step];",
            "i < count - 1",
            "longer steps: the last element is left out",
        ),
        (
            "const Vec<T> last = load_lanes<T>(from + i * step, step, 0, «rest»);",
            "rest - 1",
            "the last element of the rest is left out",
        ),
        (
            "kBeyond ? store<T>(to + i, last) : «store_partial<T>(to + i, last, rest)»;",
            "store<T>(to + i, last)",
            "writes behind the last element",
        ),
    ),
    "src/kernels/depthwise.inl.hpp": (
        (
            "begin = «lane(-column)»;",
            "0",
            "rows in place: pixels before the first are read",
        ),
        (
            "const int end = «lane(columns - column)»,",
            "lane(columns - column + 1)",
            "rows in place: the pixel behind the last is read",
        ),
        (
            "return «every_second<T, 1>(loaded[2 * v], loaded[2 * v + 1])»;",
            "every_second<T, 0>(loaded[2 * v], loaded[2 * v + 1])",
            "rows in place, stride 2: the second tap reads what the first does",
        ),
        (
            "v + 1 < kVectors ? even[v + 1] : «loaded[2 * kVectors]»);",
            "even[v]",
            "rows in place, stride 2: the last tap of a tile's last output is its first",
        ),
        (
            "const std::int64_t c = «at + kLanes<T> <= p.channel_end ? at : "
            "p.channel_end - kLanes<T>»;",
            "at",
            "the last vector of channels reaches beyond them",
        ),
        ("if («p.columns[column] < 0») return;", "false", "a column of padding is read"),
        ("if («step >= 0») {", "step > 0", "the first output is not written"),
        (
            "p.bias != nullptr ? load(«p.bias + c») : zero<T>();",
            "p.bias",
            "all vectors get the first one's bias",
        ),
        (
            "const std::int64_t taps = «left < piece_taps ? left : piece_taps»;",
            "piece_taps",
            "the last piece of a row of taps is taken whole",
        ),
        (
            "finished<T>(b.store, «sum[k] + total[k]»), lanes);",
            "sum[k]",
            "long sums lose all but their last chain",
        ),
        (
            "return «load_partial(pixel, count)»;",
            "load(pixel)",
            "reads beyond the last channel",
        ),
        (
            "const int lanes = «left < kLanes<T> ? static_cast<int>(left) : kLanes<T>»; "
            "if (b.multiplier != 1) {",
            "kLanes<T>",
            "the last vector of channels is taken whole",
        ),
        (
            "const int inputs = «numbers[lanes - 1] + 1»;",
            "kLanes<T>",
            "with a multiplier, reads beyond the last channel",
        ),
        (
            "if (tap_row < 0 || «tap_row >= kKernel») continue; const Vec<T> w = "
            "broadcast(weight[tap_row * kKernel + t]);",
            "tap_row > kKernel",
            "lanes of pixels: a row beyond the kernel counts",
        ),
        (
            "sum[r][v], «v == kVectors - 1 ? last : kLanes<T>»);",
            "kLanes<T>",
            "lanes of pixels: the last vector of a row is written whole",
        ),
        (
            "const bool inside = i >= inside_begin && «i < p.kernel_height»;",
            "i <= p.kernel_height",
            "any kernel: a row that some outputs do not read counts for all",
        ),
        (
            "if (tap_row < 0 || «tap_row >= p.kernel_height») continue;",
            "tap_row > p.kernel_height",
            "any kernel: a row beyond the kernel counts",
        ),
        (
            "sum[r][v] + total[r][v], «v == kVectors - 1 ? last : kLanes<T>»);",
            "kLanes<T>",
            "any kernel: the last vector of a row is written whole",
        ),
        (
            "«left < kLanes<T> ? static_cast<int>(left) : kLanes<T>»); } } }; };",
            "kLanes<T>",
            "small planes: the last vector is written whole",
        ),
    ),
    "src/depthwise/channels_last.cpp": (
        (
            "while (taps.begin < taps.end && «!inside(taps.begin)») ++taps.begin;",
            "(!inside(taps.begin) || taps.begin == 0)",
            "the first tap of a kernel row is left out",
        ),
        (
            "const std::int64_t first = plan.kernel != 0 ? «std::min(at, channels_ - lanes)» : at;",
            "at",
            "the last channels get weights of others",
        ),
        (
            "channel_part + 1 == share_.vector_parts ? «channels_» : vectors.end * lanes};",
            "vectors.end * lanes",
            "channels behind the last whole vector are left out",
        ),
        (
            "*pixels++ = «w < 0» ? call.packed + zeros_begin_ :",
            "false",
            "columns of padding are read",
        ),
    ),
    "src/depthwise/rolling.hpp": (
        (
            "lists.pointers[listed] = «row != nullptr ? row : zeros»;",
            "row != nullptr ? row : lists.pointers[0]",
            "rows of padding are not zeros",
        ),
    ),
    "src/depthwise/transposed.cpp": (
        (
            "const std::int64_t begin = «std::min(last.source_begin, strip.source_begin)»;",
            "strip.source_begin",
            "a band begins with the rows of its last strip",
        ),
        (
            "table_.transpose(«channels», pixels,",
            "lanes_",
            "reads beyond the last channel",
        ),
        (
            "table_.transpose(pixels, «channels»,",
            "lanes_",
            "writes beyond the last channel",
        ),
        (
            "std::copy(call.bias + channel, «call.bias + channel + channels», scratch.bias);",
            "call.bias + channel + lanes_",
            "reads beyond the last channel's bias",
        ),
        (
            "const std::int64_t together = «step == 1 ? rows.count : 1»;",
            "rows.count",
            "rows of a dilated kernel are written as if they were neighbours",
        ),
        (
            "return «h < 0» ? nullptr :",
            "false",
            "rows of padding are read",
        ),
    ),
    "src/packed_rows.cpp": (
        (
            "«last * phase_.source_step + phase_.taps.back().offset < extent_»;",
            "last * phase_.source_step + phase_.taps.back().offset <= extent_",
            "a block that reads a column behind counts as inside",
        ),
        (
            "taps() > 0 && «coordinate(first, 0) >= 0» &&",
            "coordinate(first, 0) >= -1",
            "a block that reads a column in front counts as inside",
        ),
        (
            "const std::int64_t begin = std::clamp<std::int64_t>(«divide_up(-first, step)», 0, "
            "count);",
            "divide_up(-first, step) - 1",
            "a column in front of a row is packed",
        ),
        (
            "std::clamp<std::int64_t>(«divide_up(extent - first, step)», begin, count);",
            "divide_up(extent - first, step) + 1",
            "a column behind a row is packed",
        ),
        (
            "for (std::int64_t n = from; «n < to»; ++n) {",
            "n < to - 1",
            "the last column of padding is not packed",
        ),
        (
            "if («from < to && with_zeros») runs.push_back",
            "false",
            "padding is not cleared between the pieces of a long row",
        ),
        (
            "if (at / pitch >= rows || «at % pitch >= columns») continue;",
            "at % pitch > columns",
            "small planes: a lane between rows is kept",
        ),
    ),
}
