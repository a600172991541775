"""Pooling and its gradients."""

from __future__ import annotations

MUTATIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "src/kernels/pooling.inl.hpp": (
        (
            "const auto greater = «x > value[v]»; value[v]",
            "x >= value[v]",
            "of equal elements the last one is chosen",
        ),
        (
            "for (std::int64_t t = begin; «t < begin + count»; ++t) {",
            "t < begin + count - 1",
            "the last tap of a row is left out",
        ),
        (
            "const std::int64_t at = «t + kWide <= taps ? t : taps - kWide»;",
            "t",
            "lanes of taps: reads beyond the window",
        ),
        (
            "for (; «t < end»; ++t) single += p[t * step];",
            "t < end - 1",
            "lanes of taps: the last one is left out",
        ),
        (
            "lanes.take(v, «load_upto(p + t, left < kLanes<T> ? static_cast<int>(left) : "
            "kLanes<T>)», 0);",
            "load(p + t)",
            "lanes of taps: a sum reads beyond the window",
        ),
        (
            "return sum_of_lanes<T>(«sum.total() + blocks.result(0)») + sum.single;",
            "sum.total()",
            "long sums lose all but their last block",
        ),
        (
            "return v < kVectors - 1 ? load(p + v * kLanes<T>) : "
            "«load_upto(p + v * kLanes<T>, last)»;",
            "load(p + v * kLanes<T>)",
            "reads beyond the last channel",
        ),
        (
            "const int count = «v < kVectors - 1 ? kLanes<T> : last»;",
            "kLanes<T>",
            "writes beyond the last channel",
        ),
        (
            "«empty ? 0 : first», 0, reduction.index(v), count);",
            "first",
            "lanes of channels: an empty window has another index than 0",
        ),
        (
            "for (; «c < pass.channels»; c += kLanes<T>) { const std::int64_t left = "
            "pass.channels - c; run_channels<1>",
            "c + kLanes<T> <= pass.channels",
            "channels behind the last whole vector are left out",
        ),
        (
            "return «load_upto(p, count)»; } else if constexpr (kStep == LaneStep::two) {",
            "load(p)",
            "lanes of outputs: reads beyond the row",
        ),
        (
            "return «count == kLanes<T> ? load_every<T, 2>(p) : load_strided(p, 2, count)»;",
            "load_every<T, 2>(p)",
            "lanes of every other output: reads beyond the row",
        ),
        (
            "const int begin = «first < 0 ? clamped((kApart - 1 - first) / kApart) : 0»;",
            "first < 0 ? clamped((kApart - 1 - first) / kApart) - 1 : 0",
            "a lane whose tap is padding in front reads",
        ),
        (
            "const int end = «last <= 0 ? 0 : clamped(last / kApart)»;",
            "last <= 0 ? 0 : clamped(last / kApart + 1)",
            "a lane whose tap is padding behind reads",
        ),
        (
            "const int to = «2 * end - 1»;",
            "2 * end - 2",
            "every other lane: the last one reads nothing",
        ),
        (
            "lanes[i] = static_cast<Lane<T>>(«at < 0 ? -at : 0»);",
            "std::int64_t{0}",
            "the first tap in bounds is taken for tap 0",
        ),
        (
            "(«start < 0» || start + (count - 1) * run.input_step + run.taps > "
            "pass.width.input)) {",
            "start < -1",
            "a window that begins one before the row counts as inside",
        ),
        (
            "(start < 0 || «start + (count - 1) * run.input_step + run.taps > "
            "pass.width.input»)) {",
            "start + (count - 1) * run.input_step + run.taps > pass.width.input + 1",
            "a window that ends one behind the row counts as inside",
        ),
        (
            "const std::int64_t begin = «j + kLanes<T> <= run.count ? j : run.count - kLanes<T>»;",
            "j",
            "the last vector of outputs reaches beyond the row",
        ),
        (
            "(run.output_step == 1 ? load_upto(«divisors», count)",
            "pass.width_divisor",
            "windows at the end of a row have the first ones' divisors",
        ),
        (
            "if (divides(pass)) «value /= rows.divisor * pass.width_divisor[column];»",
            "value /= rows.divisor * pass.width_divisor[0];",
            "single windows have the first one's divisor",
        ),
        (
            "empty ? 0 : «rows.first + first + greatest.index», 0, Mask<T>{}, 1);",
            "first + greatest.index",
            "single windows have indices of the first row",
        ),
        (
            "if («i < count») b = b + load_partial(x + i, static_cast<int>(count - i));",
            "false",
            "short maps: the rest of a sum is left out",
        ),
        (
            "const int maps = «left < kLanes<T> ? static_cast<int>(left) : kLanes<T>»;",
            "kLanes<T>",
            "short maps: reads maps that do not exist",
        ),
    ),
    "src/kernels/pooling_gradient.inl.hpp": (
        (
            "for (std::int64_t m = 0; «m < g.height.count[height]»; ++m) {",
            "m < g.height.count[height] - 1",
            "the last row of readers is left out",
        ),
        (
            "(Mask<T>)load_between<T>(reinterpret_cast<const T*>(chosen), 0, «last»,",
            "last - 1",
            "the last channel's choice is not read",
        ),
        (
            "kPartial ? «load_partial(dy, last)» : load(dy + v * kLanes<T>)",
            "load(dy)",
            "reads beyond the last channel",
        ),
        (
            "store_partial<T>(dx, divided(sum[v]), «last»);",
            "last - 1",
            "the last channel is not written",
        ),
        (
            "if (lanes == kLanes<T> && «q + g.offsets[begin] >= 0» &&",
            "q + g.offsets[begin] >= -1",
            "lanes of inputs: an output in front of the row is read",
        ),
        (
            "«q + g.offsets[end - 1] + kLanes<T> <= g.width.output») {",
            "q + g.offsets[end - 1] + kLanes<T> <= g.width.output + 1",
            "lanes of inputs: an output behind the row is read",
        ),
        (
            "const int low = «o < 0 ? (-o < lanes ? static_cast<int>(-o) : lanes) : 0»;",
            "o < 0 ? (-o < lanes ? static_cast<int>(-o) - 1 : lanes) : 0",
            "lanes of inputs: a lane in front of the row reads",
        ),
        (
            "const int high = «left < lanes ? (left < 0 ? 0 : static_cast<int>(left)) : lanes»;",
            "left < lanes ? (left < 0 ? 0 : static_cast<int>(left) + 1) : lanes",
            "lanes of inputs: a lane behind the row reads",
        ),
        (
            "const std::int64_t left = «(g.width.input - r + g.stride - 1) / g.stride - q»;",
            "(g.width.input - r) / g.stride - q",
            "the last input of a residue is left out",
        ),
        (
            "store_upto<T>(row + 2 * q, low, «left < kLanes<T> ? static_cast<int>(left) : "
            "kLanes<T>»);",
            "kLanes<T>",
            "stride 2: the last vector of a row is written whole",
        ),
        (
            "if («left > kLanes<T>») { store_partial<T>(row + 2 * q + kLanes<T>,",
            "left > kLanes<T> + 1",
            "stride 2: one input beyond a vector is left out",
        ),
        (
            "store_strided<T>(row + q * g.stride + r, g.stride, sum, «lanes»);",
            "kLanes<T>",
            "longer strides: writes beyond the row",
        ),
        (
            "for (std::int64_t n = 0; «n < g.width.count[column]»; ++n, o += "
            "g.width.step[column]) {",
            "n < g.width.count[column] - 1",
            "one input after the other: the last reader is left out",
        ),
        (
            "if («i < g.width.input») store_partial<T>(dx + i, share,",
            "false",
            "global: the rest of a map gets no gradient",
        ),
        (
            "outside |= «index | (pixels - 1 - index)»;",
            "std::int64_t{0}",
            "an index is taken for its lower bits",
        ),
    ),
    "src/pooling/geometry.cpp": (
        (
            "std::min(window.kernel, «divide_up(window.input - start, window.dilation)»);",
            "divide_up(window.input - start, window.dilation) + 1",
            "a window reaches one element behind the input",
        ),
        (
            "std::max<std::int64_t>(0, «divide_up(-start, window.dilation)»);",
            "divide_up(-start, window.dilation) - 1",
            "a window reaches one element in front of the input",
        ),
        (
            "«std::min(start + window.kernel, window.input + window.after)» - start);",
            "start + window.kernel",
            "the divisor of a window that outgrows the padding is not clipped",
        ),
        (
            "axis.taps[o] = «divide_up((o + 1) * input, output)» - axis.first[o];",
            "(o + 1) * input / output",
            "adaptive windows do not overlap",
        ),
        (
            "while (high < output() && «first[high] <= i») ++high;",
            "first[high] < i",
            "a window's first element does not read it",
        ),
    ),
    "src/pooling/gradient.cpp": (
        (
            "for (std::int64_t t = 0; «t < axis.taps[o]»; ++t) {",
            "t < axis.taps[o] - 1",
            "a window's last element does not read it",
        ),
    ),
    "src/pooling/pooling.cpp": (
        (
            "return «axis.first[0] + (axis.taps[0] - 1) * axis.step + 1»;",
            "axis.first[0] + (axis.taps[0] - 1) * axis.step",
            "gradients are not cleared far enough",
        ),
        (
            "gradient.fold(); «gradient.zero_until(pixels);» });",
            "(void)0;",
            "inputs behind the last window are not cleared",
        ),
    ),
    "src/pooling/windowed.cpp": (
        (
            "for (std::int64_t w = 0; «w < pass.width.taps[width]»; ++w, pixel +=",
            "w < pass.width.taps[width] - 1",
            "norms and draws leave out the last column of a window",
        ),
        (
            "for (std::int64_t h = 0; «h < pass.height.taps[height]»; ++h) {",
            "h < pass.height.taps[height] - 1",
            "norms and draws leave out the last row of a window",
        ),
    ),
    "src/pooling/maps.hpp": (
        (
            "body(map / blocks(), channel, «std::min(block, channels - channel)», row, end,",
            "block",
            "the last block of channels counts as whole",
        ),
    ),
}
