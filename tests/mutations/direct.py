"""direct, and the sources of pixels that other algorithms share with it."""

from __future__ import annotations

MUTATIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "src/kernels/direct.inl.hpp": (
        (
            "const std::int64_t step = «kApart ? tile.source_channel_stride : 1»;",
            "1",
            "channels apart are read as if they touched",
        ),
        (
            "case kFirstPixel: «add_tap<1, kPixels>(sum, tile, from, weight);» break;",
            "add_tap<0, kPixels>(sum, tile, from, weight);",
            "the first pixel reads its padding from the array",
        ),
        (
            "case kLastPixel: «add_tap<0, kPixels - 1>(sum, tile, from, weight);» break;",
            "add_tap<0, kPixels>(sum, tile, from, weight);",
            "the last pixel reads its padding from the array",
        ),
        (
            "| «(p + kPixels == tile.pixels ? tile.edges & kLastPixel : 0U)»;",
            "(tile.edges & kLastPixel)",
            "every tile of a run has its last pixel at the border",
        ),
        (
            "const unsigned edges = «(p == 0 ? tile.edges & kFirstPixel : 0U)» |",
            "(tile.edges & kFirstPixel)",
            "every tile of a run has its first pixel at the border",
        ),
        (
            "const int last = «tile.pixels - (kVectors - 1) * kLanes<T>»;",
            "tile.pixels - (kVectors - 1) * kLanes<T> - 1",
            "lanes of pixels: the last vector loses a lane",
        ),
        (
            "column[v] = «in_part ? load_partial(at, last) : load(at)»;",
            "load(at)",
            "lanes of pixels: reads beyond the last one",
        ),
        (
            "column[v] = load_strided(at, step, «in_part ? last : kLanes<T>»);",
            "kLanes<T>",
            "lanes of pixels apart: reads beyond the last one",
        ),
        (
            "const int count = «v < kVectors - 1 ? kLanes<T> : last»; "
            "T* at = tile.output + r * tile.output_channel_stride",
            "kLanes<T>",
            "lanes of pixels apart: writes beyond the last one",
        ),
        (
            "if (tile.accumulate) value = «load_strided(at, out_step, count) + value»;",
            "value",
            "lanes of pixels apart: forgets what was there",
        ),
        (
            "const int last = «tile.out_channels - (kVectors - 1) * kLanes<T>»;",
            "tile.out_channels - (kVectors - 1) * kLanes<T> - 1",
            "each channel for itself: the last vector loses a lane",
        ),
        (
            "sum[p][v] = multiply_add(«load_upto(pixel, count)», w, sum[p][v]);",
            "load(pixel)",
            "each channel for itself: reads beyond the last one",
        ),
    ),
    "src/algorithms/direct.cpp": (
        (
            "const auto valid = static_cast<int>(«std::min(panel_width_, produced_ - first)»);",
            "panel_width_",
            "the last panel of weights is packed as a whole one",
        ),
        (
            "static_cast<int>(«std::min(panel_width_, produced_ - panel * panel_width_)»);",
            "panel_width_",
            "the last panel writes more channels than there are",
        ),
        (
            "tile.channels = «std::min(channel_chunk_, reduced_ - c)»;",
            "channel_chunk_",
            "the last chunk of channels reads too many",
        ),
        (
            "tile.accumulate = «t > 0 || c > 0»;",
            "t > 0",
            "the last chunk of channels replaces the others",
        ),
        (
            "shift >= width.input ? 0 : «divide_up(width.input - shift, width.stride)»;",
            "divide_up(width.input - shift, width.stride) + 1",
            "gradient of weights: one output reads beyond its row",
        ),
        (
            "shift >= 0 ? 0 : «divide_up(-shift, width.stride)»;",
            "divide_up(-shift, width.stride) + 1",
            "gradient of weights: the first output inside is left out",
        ),
        (
            "if («d < 0 || h < 0») continue;",
            "h < 0",
            "gradient of weights: planes of padding count",
        ),
        (
            "const std::int64_t end = «std::min(width.output, begin + strip_pixels_)»;",
            "begin + strip_pixels_",
            "gradient of weights: the last strip runs into the next row",
        ),
        (
            "tile.in_channels = static_cast<int>(«std::min(in_tile_, in_ - c)»);",
            "in_tile_",
            "gradient of weights: the last tile has too many channels",
        ),
        (
            "for (std::int64_t o = last; «o < end»; ++o) add(o, 1);",
            "o < end - 1",
            "gradient of weights: the last column that is no zero padding is left out",
        ),
    ),
    "src/padding.hpp": (
        ("if (q >= 0 && «q < input») return q;", "q <= input", "padding begins a pixel late"),
        (
            "return q < 0 ? -q : «2 * (input - 1) - q»;",
            "2 * input - 1 - q",
            "reflect repeats the edge",
        ),
    ),
    "src/taps.cpp": (
        (
            "if (distance % w.stride == 0 && «distance / w.stride < w.output») {",
            "distance / w.stride <= w.output",
            "a pixel is read by an output that does not exist",
        ),
        (
            "if (i > 0 && «i <= w.before») visit_readers_of(-i);",
            "i < w.before",
            "reflect, adjoint: the margin in front folds back one short",
        ),
        (
            "if (i < last && «last - i <= w.after») visit_readers_of(2 * last - i);",
            "last - i < w.after",
            "reflect, adjoint: the margin behind folds back one short",
        ),
        (
            "t < w.kernel && «first + t * w.dilation < 0»; ++t) visit(t, o);",
            "first + t * w.dilation < -1",
            "replicate, adjoint: the margin in front folds back one short",
        ),
        (
            "t >= 0 && «first + t * w.dilation > last»; --t) {",
            "first + t * w.dilation > last + 1",
            "replicate, adjoint: the margin behind folds back one short",
        ),
        (
            "if («i >= w.input - w.before») visit_readers_of(i - w.input);",
            "i > w.input - w.before",
            "circular, adjoint: the margin in front folds back one short",
        ),
        (
            "if («i < w.after») visit_readers_of(i + w.input);",
            "i < w.after - 1",
            "circular, adjoint: the margin behind folds back one short",
        ),
        (
            "result.begin = «divide_up(w.before, w.stride)»;",
            "std::max<std::int64_t>(0, divide_up(w.before, w.stride) - 1)",
            "an output with padding in front counts as inside",
        ),
        (
            "room < 0 ? 0 : «std::min(w.output, room / w.stride + 1)»;",
            "std::min(w.output, room / w.stride + 2)",
            "an output with padding behind counts as inside",
        ),
        (
            "result.begin = std::max<std::int64_t>(0, «reach - w.before»);",
            "reach - w.before - 1",
            "adjoint: a pixel with fewer readers in front counts as inside",
        ),
        (
            "result.end = std::min(w.input, «w.output * w.stride - w.before»);",
            "w.output * w.stride - w.before + 1",
            "adjoint: a pixel with fewer readers behind counts as inside",
        ),
        (
            "std::clamp(«divide_up(window_.before - reach, window_.stride)», begin, end);",
            "divide_up(window_.before - reach, window_.stride) + 1",
            "the first output that reaches the input counts as empty",
        ),
        (
            "std::clamp(«divide_up(window_.input + window_.before, window_.stride)», "
            "first_reached, end);",
            "divide_up(window_.input + window_.before, window_.stride) - 1",
            "the last output that reaches the input counts as empty",
        ),
    ),
    "src/phases.cpp": (
        (
            "«residue < std::min(w.stride, w.input)»; ++residue) {",
            "residue < std::min(w.stride, w.input) - (w.stride > 1)",
            "the last residue of the stride is left out",
        ),
        (
            "AxisPhase phase{residue, w.stride, «divide_up(w.input - residue, w.stride)», 1, {}};",
            "w.input / w.stride",
            "a residue loses its last pixel",
        ),
        (
            "AxisPhase all{0, 1, «w.output», w.stride, {}};",
            "w.output - (w.output > 1)",
            "the last output is left out",
        ),
    ),
}
