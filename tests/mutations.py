"""Mistakes at borders, one for each way a kernel could get its edges wrong; mutate.py plants them.

Each is a piece of a file with the mistaken part in «», what stands there instead, and what is
wrong with it. The piece must occur once; white space matters only in that there is some.
"""

from __future__ import annotations

# file: (piece, replacement, what is wrong)
MUTATIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    # ---- register tiles and matrix products -------------------------------------------------
    "src/kernels/tile.inl.hpp": (
        (
            "int columns, bool accumulate) { const int last = "
            "«columns - (kVectors - 1) * kLanes<T>»;",
            "columns - (kVectors - 1) * kLanes<T> - 1",
            "the last vector of a tile loses a lane",
        ),
        (
            "store_partial<T>(at, accumulate ? «load_partial(at, last) + sum[r][v]» :",
            "sum[r][v]",
            "the last vector forgets what was there",
        ),
        (
            "if («v < kVectors - 1 || last == kLanes<T>») {",
            "true",
            "the last vector is stored whole",
        ),
        ("if («rows < kMost») {", "rows < kMost - 1", "a tile has a row too many"),
    ),
    "src/kernels/gemm.inl.hpp": (
        (
            "if («columns > kLanes<T>») { gemm_tile_of<T, kRows, 2>",
            "columns > kLanes<T> + 1",
            "one column beyond a vector is left out",
        ),
        (
            "for (std::int64_t p = 0; «p < k»; ++p) { Vec<T> column[kVectors]; "
            "CONVOLITH_UNROLL(2) for (int v = 0; v < kVectors; ++v) "
            "column[v] = load(b + v * kLanes<T>); CONVOLITH_UNROLL(16) "
            "for (int r = 0; r < kRows; ++r) { const Vec<T> row = broadcast(a[r]);",
            "p < k - 1",
            "the last product of a sum is left out",
        ),
        (
            "const int last = «columns - (kVectors - 1) * kLanes<T>»;",
            "columns - (kVectors - 1) * kLanes<T> - 1",
            "rows of B anywhere: the last vector loses a lane",
        ),
        (
            "column[v] = «kPartial && v == kVectors - 1 ? load_partial(from + v * kLanes<T>, last) "
            ": load(from + v * kLanes<T>)»;",
            "load(from + v * kLanes<T>)",
            "rows of B anywhere: reads beyond the last row",
        ),
        (
            "if («columns > kLanes<T>») { gemm_rows_tile_of<T, kRows, 2>",
            "columns > kLanes<T> + 1",
            "rows of A together: one column beyond a vector is left out",
        ),
        (
            "if («valid == kTileColumns<T> && width == kTileColumns<T>») {",
            "width == kTileColumns<T>",
            "a panel in part is copied as a whole one",
        ),
        (
            "const int left = «valid - i»;",
            "valid - i - 1",
            "a panel's row loses its last element",
        ),
        (
            "left > 0 ? load_upto(source + i, left) : zero<T>(), «width - i»);",
            "width - i - 1",
            "the last lane of a panel in part is not cleared",
        ),
        (
            "const int count = «k - p < kLanes<T> ? static_cast<int>(k - p) : kLanes<T>»; "
            "Vec<T> square[kLanes<T>];",
            "kLanes<T>",
            "the last square of a panel is taken whole",
        ),
        (
            "square[i] = «first + i < valid» ? load_upto(row, count) : zero<T>();",
            "first + i <= valid",
            "a panel in part reads one row too many",
        ),
    ),
    "src/kernels/elementwise.inl.hpp": (
        (
            "for (int j = 0; «j < columns»; j += kLanes<T>) {",
            "j < columns - 1",
            "an epilogue leaves out a single last column",
        ),
        (
            "const int count = «columns - j < kLanes<T> ? columns - j : kLanes<T>»;",
            "kLanes<T>",
            "an epilogue takes the last vector whole",
        ),
        (
            "v = v + load_upto(«epilogue.bias + j», count);",
            "epilogue.bias",
            "the second vector of columns gets the first one's bias",
        ),
        (
            "v = v + broadcast(«epilogue.bias[r]»);",
            "epilogue.bias[0]",
            "all rows get the first one's bias",
        ),
        (
            "r * epilogue.residual_row_stride + «j * epilogue.residual_column_stride»;",
            "std::int64_t{0}",
            "the second vector of columns gets the first one's residual",
        ),
        (
            "for (; «i < count»; ++i) destination[i] += source[i];",
            "i < count - 1",
            "a sum of arrays leaves out its last element",
        ),
        (
            "const int lanes = «count - i < kLanes<T> ? static_cast<int>(count - i) : kLanes<T>»;",
            "kLanes<T>",
            "a sum takes the last vector whole",
        ),
    ),
    "src/gemm/gemm.cpp": (
        (
            "const auto valid = static_cast<int>(«std::min(columns, n_ - first)»);",
            "columns",
            "the last panel of B is packed as a whole one",
        ),
        (
            "const auto tile_columns = static_cast<int>(«std::min(columns, column_end - j)»);",
            "columns",
            "the last tile of a row is a whole one",
        ),
        (
            "const auto tile_rows = static_cast<int>(«std::min(rows, i_end - r)»);",
            "rows",
            "the last tile of a column is a whole one",
        ),
        (
            "if («k + k_count < k_end») block.epilogue = nullptr;",
            "false",
            "every block of a sum gets the epilogue",
        ),
        (
            "block.accumulate = «c.accumulate || k > k_begin»;",
            "c.accumulate",
            "the last block of a sum replaces the others",
        ),
        (
            "if (epilogue.bias_axis == BiasAxis::columns) «epilogue.bias += j;»",
            "epilogue.bias += 0;",
            "all tiles get the first one's bias",
        ),
    ),
    # ---- direct -----------------------------------------------------------------------------
    "src/kernels/direct.inl.hpp": (
        (
            "case kFirstPixel: «add_tap<1, kPixels>(sum, tile, tap);» break;",
            "add_tap<0, kPixels>(sum, tile, tap);",
            "the first pixel reads its padding from the array",
        ),
        (
            "case kLastPixel: «add_tap<0, kPixels - 1>(sum, tile, tap);» break;",
            "add_tap<0, kPixels>(sum, tile, tap);",
            "the last pixel reads its padding from the array",
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
            "for (std::int64_t q = -w.before; «q < 0»; ++q) visit_readers_of(q);",
            "q < -1",
            "replicate, adjoint: the margin in front folds back one short",
        ),
        (
            "for (std::int64_t q = last + 1; «q <= last + w.after»; ++q)",
            "q < last + w.after",
            "replicate, adjoint: the margin behind folds back one short",
        ),
        (
            "if («i >= w.input - w.before») visit_readers_of(i - w.input);",
            "i > w.input - w.before",
            "circular, adjoint: the margin in front folds back one short",
        ),
        (
            "if («i < w.after») visit_readers_of(i + w.input);",
            "i <= w.after",
            "circular, adjoint: the margin behind folds back one too many",
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
    # ---- im2col_gemm ------------------------------------------------------------------------
    "src/algorithms/im2col_gemm.cpp": (
        (
            "shift >= 0 ? 0 : «divide_up(-shift, width.stride)», 0, width.output);",
            "divide_up(-shift, width.stride) - 1",
            "a column in front of a row is read",
        ),
        (
            "shift >= width.input ? 0 : «divide_up(width.input - shift, width.stride)», begin,",
            "divide_up(width.input - shift, width.stride) + 1",
            "a column behind a row is read",
        ),
        (
            "if («d < 0 || h < 0») { std::fill(to, to + width.output, T(0));",
            "h < 0",
            "channels_first: a plane of padding is read",
        ),
        (
            "if («d < 0 || h < 0 || w < 0») {",
            "h < 0 || w < 0",
            "channels_last: a plane of padding is read",
        ),
        (
            "const auto valid = static_cast<int>(«std::min(width, lanes - first)»);",
            "width",
            "the last panel of weights is packed as a whole one",
        ),
    ),
    "src/kernels/interleaving.inl.hpp": (
        (
            "const int left = «count * kChannels - kPart * kLanes<T>»;",
            "count * kChannels - kPart * kLanes<T> - 1",
            "the last channel of the last pixel is not stored",
        ),
        (
            "for (; «i + kLanes<T> <= pixels»; i += kLanes<T>) { CONVOLITH_UNROLL(8)",
            "i < pixels",
            "the last pixels are taken as a whole vector",
        ),
        (
            "const int left = «count * kChannels - p * kLanes<T>»;",
            "count * kChannels - p * kLanes<T> + 1",
            "an element behind the last pixel is read",
        ),
    ),
    "src/kernels/pixel_tile.inl.hpp": (
        (
            "const int count = «v < kVectors - 1 ? kLanes<T> : last»;",
            "kLanes<T>",
            "the last vector of a line is stored whole",
        ),
        (
            "return «kPartial && v == kVectors - 1» ? load_partial(at, last) : load(at);",
            "false",
            "reads beyond the last row of the source",
        ),
        (
            "if («kLines > 1 || tile.reads_whole_vectors || "
            "tile.columns == kVectors * kLanes<T>») {",
            "true",
            "lines read where they lie are read beyond their ends",
        ),
        ("if («tile.lines > 0») run_lines", "tile.lines > 1", "the last line of a few is left out"),
        ("if («tile.continues») s =", "false", "sums of earlier terms are lost"),
    ),
    "src/kernels/pixel_gradient.inl.hpp": (
        (
            "if («last > 0») add(x, y,",
            "last > 1",
            "a single last column is left out",
        ),
        (
            "for (std::int64_t i = tile.columns; «i >= kLanes<T>»; i -= kLanes<T>)",
            "i > 0",
            "the last columns are taken as a whole vector",
        ),
        ("store<T>(to, «load(to) + sum[t][k]»);", "sum[t][k]", "a block's sums replace the others"),
    ),
    "src/kernels/patches.inl.hpp": (
        (
            "const auto rest = «static_cast<int>(segment.count - whole)»;",
            "0",
            "the rest of a segment is not copied",
        ),
        (
            "store_partial<T>(to + whole, zero<T>(), «rest»);",
            "rest - 1",
            "the last element of a padded segment is not cleared",
        ),
        (
            "load_between(p, clamp(2 * begin), clamp(«2 * end - 1»), zero<T>());",
            "2 * end - 2",
            "every other element: the last one is left out",
        ),
        (
            "for (; «i < count»; ++i) destination[i] = source[i * step];",
            "i < count - 1",
            "the last element of a strided copy is left out",
        ),
        (
            "const int width = «upto(columns - j)»;",
            "kLanes<T>",
            "a transposition reads and writes beyond its columns",
        ),
        (
            "const int height = «upto(rows - i)»;",
            "kLanes<T>",
            "a transposition reads and writes beyond its rows",
        ),
        (
            "load_lanes<T>(from, source_step, 0, «width»)",
            "width - 1",
            "a transposition loses its last column",
        ),
        (
            "const int count = «elements - e < kLanes<T> ? static_cast<int>(elements - e) "
            ": kLanes<T>»;",
            "kLanes<T>",
            "weights of several taps: the last square is taken whole",
        ),
        (
            "square[i] = «first + i < valid» ? load_upto(row, count) : zero<T>();",
            "first + i <= valid",
            "weights of several taps: reads a channel too many",
        ),
    ),
    # ---- implicit_gemm ----------------------------------------------------------------------
    "src/implicit_gemm/strip_gemm.cpp": (
        (
            "while (range.begin < range.end && "
            "«!inside(axis, j, taps[range.begin].offset)») ++range.begin;",
            "false",
            "taps in padding in front are summed",
        ),
        (
            "while (range.end > range.begin && "
            "«!inside(axis, j, taps[range.end - 1].offset)») --range.end;",
            "false",
            "taps in padding behind are summed",
        ),
        (
            "const T* from = «plane < 0 || line < 0» ? nullptr",
            "line < 0",
            "a plane of padding is read",
        ),
        (
            "const std::int64_t column_end = "
            "«std::min(destinations_[2], columns.end * column_unit_)»;",
            "columns.end * column_unit_",
            "the last unit of columns is taken whole",
        ),
        (
            "std::min({«destinations_[1]», block.row + block_rows_, block.row + rows.end - row});",
            "block.row + rows.end - row",
            "a block of rows runs into the next plane",
        ),
    ),
    "src/implicit_gemm/channel_lanes.cpp": (
        (
            "tile.edges = («block.column + range.begin == segment.columns.begin» ? kFirstPixel",
            "false",
            "the first pixel of a tile is not known for one",
        ),
        (
            "(«block.column + range.end == segment.columns.end» ? kLastPixel",
            "false",
            "the last pixel of a tile is not known for one",
        ),
        (
            "const std::int64_t begin = std::clamp<std::int64_t>(«divide_up(-offset, step)», 0, "
            "count);",
            "divide_up(-offset, step) - 1",
            "a column in front of a row is packed",
        ),
        (
            "line == nullptr ? begin : std::clamp(«divide_up(extent - offset, step)», begin, "
            "count);",
            "divide_up(extent - offset, step) + 1",
            "a column behind a row is packed",
        ),
        (
            "for (std::int64_t j = end; «j < count»; ++j) pad(j);",
            "j < count - 1",
            "the last column of padding is not packed",
        ),
        (
            "const std::int64_t row_end = «std::min(block.row_end, height.count)»;",
            "block.row_end",
            "a residue with fewer rows gets as many as the others",
        ),
        (
            "tile.accumulate = «products.accumulates || !first»;",
            "products.accumulates",
            "the last block of a sum replaces the others",
        ),
        (
            "«(plane * kernel_rows + rows.end) * segment.row_units»);",
            "(plane * kernel_rows + rows.end - 1) * segment.row_units",
            "near a border, the last row of taps is left out",
        ),
    ),
    "src/implicit_gemm/pixel_lanes.cpp": (
        (
            "tile.columns = static_cast<int>(«std::min<std::int64_t>(shape.columns, "
            "column_end - column)»);",
            "shape.columns",
            "the last tile of a row is a whole one",
        ),
        (
            "«((planes.end - 1) * height + rows.end) * kernel_row»};",
            "((planes.end - 1) * height + rows.end - 1) * kernel_row",
            "the last row of taps is left out",
        ),
        (
            "rows = {«std::min(rows.begin, more.begin)», std::max(rows.end, more.end)};",
            "rows.begin",
            "rows of taps that only later lines of a group need are left out",
        ),
        (
            "while (next < end && «same(group_terms(plan, planes, next, group), terms)») "
            "next += group;",
            "true",
            "lines take the terms of others",
        ),
        ("tile.lines = «std::min(next, end) - row»;", "next - row", "a tile has lines of others"),
        ("tile.continues = «b > 0»;", "false", "the last block of a sum replaces the others"),
    ),
    "src/implicit_gemm/pixel_strips.cpp": (
        (
            "const std::int64_t begin = std::clamp<std::int64_t>(«divide_up(-offset, step_)», 0, "
            "pixels);",
            "divide_up(-offset, step_) - 1",
            "a column in front of a row is packed",
        ),
        (
            "line == nullptr ? begin : std::clamp(«divide_up(extent_ - offset, step_)», begin, "
            "pixels);",
            "divide_up(extent_ - offset, step_) + 1",
            "a column behind a row is packed",
        ),
        (
            "pad(source, line, offset, «{end, pixels}», strip);",
            "{end, pixels - 1}",
            "the last column of padding is not packed",
        ),
        (
            "kernels_.clear_rows(channels_, «pixels.end - pixels.begin», strip + pixels.begin, "
            "channel);",
            "pixels.end - pixels.begin - 1",
            "the last column of zeros is not cleared",
        ),
    ),
    "src/implicit_gemm/pixel_gradient.cpp": (
        ("if («plane < 0») continue;", "false", "a plane of padding is read"),
        ("if («row < 0») continue;  // is", "false", "a row of padding is read"),
        (
            "std::clamp<std::int64_t>(«divide_up(-first, height.stride)», 0, block.rows);",
            "divide_up(-first, height.stride) - 1",
            "a row of padding in front counts",
        ),
        (
            "std::clamp(«divide_up(height.input - first, height.stride)», begin, block.rows)};",
            "divide_up(height.input - first, height.stride) + 1",
            "a row of padding behind counts",
        ),
        (
            "const std::int64_t taps = «divide_up(width.kernel - residue, width.stride)»;",
            "(width.kernel - residue) / width.stride",
            "the last tap of a residue is left out",
        ),
        (
            "for (std::int64_t part = 1; «part < parts_»; ++part)",
            "part < parts_ - 1",
            "the last part of the sums is left out",
        ),
    ),
    "src/implicit_gemm/column_segments.cpp": (
        (
            "std::clamp<std::int64_t>(«divide_up(-tap.offset, width.source_step)», 0, "
            "width.count);",
            "divide_up(-tap.offset, width.source_step) - 1",
            "a column takes a tap that reads in front of the row",
        ),
        (
            "std::clamp(«divide_up(sources - tap.offset, width.source_step)», begin, width.count);",
            "divide_up(sources - tap.offset, width.source_step) + 1",
            "a column takes a tap that reads behind the row",
        ),
    ),
    "src/implicit_gemm/gradient_geometry.cpp": (
        (
            "tap.begin = std::clamp(«divide_up(-tap.offsets[2], width.stride) - block.column»,",
            "divide_up(-tap.offsets[2], width.stride) - block.column + 1",
            "the first column inside is left out",
        ),
        (
            "std::clamp(«divide_up(width.input - tap.offsets[2], width.stride) - block.column»,",
            "divide_up(width.input - tap.offsets[2], width.stride) - block.column + 1",
            "a column behind the row counts",
        ),
        (
            "return clips() && (at < 0 || «at >= windows_[axis].input»);",
            "at > windows_[axis].input",
            "a row or plane behind the map counts",
        ),
    ),
    "src/implicit_gemm/gradient_panels.cpp": (
        (
            "const std::int64_t begin = "
            "std::clamp<std::int64_t>(«divide_up(-from, source_step)», 0, count);",
            "divide_up(-from, source_step) - 1",
            "a column in front of a row is packed",
        ),
        (
            "std::clamp<std::int64_t>(«divide_up(width.input - from, source_step)», begin, count);",
            "divide_up(width.input - from, source_step) + 1",
            "a column behind a row is packed",
        ),
        (
            "for (std::int64_t j = end; «j < count»; ++j) pad(j);",
            "j < count - 1",
            "the last column of padding is not packed",
        ),
    ),
    "src/implicit_gemm/weight_gradient.cpp": (
        (
            "const std::int64_t channels = «std::min(columns_width_, shape_.lanes - first)»;",
            "columns_width_",
            "the last panel of columns has too many channels",
        ),
        (
            "for (std::int64_t n = 1; «n < parts_»; ++n) { part += part_sums;",
            "n < parts_ - 1",
            "the last part is not added",
        ),
    ),
    "src/kernels/weight_gemm.inl.hpp": (
        (
            "const int width = each + («i < longer» ? 1 : 0);",
            "i < longer - 1",
            "a panel of rows loses its last channel",
        ),
        (
            "const int lanes = «width - c < kLanes<T> ? width - c : kLanes<T>»;",
            "kLanes<T>",
            "a panel of rows is copied in whole vectors",
        ),
    ),
    "src/kernels/weight_gradient.inl.hpp": (
        (
            "const int last = «tile.out_channels - (kVectors - 1) * kLanes<T>»;",
            "tile.out_channels - (kVectors - 1) * kLanes<T> - 1",
            "the last vector of channels loses a lane",
        ),
        (
            "«segment.count - p < kLanes<T> ? static_cast<int>(segment.count - p) : kLanes<T>»;",
            "kLanes<T>",
            "dot products take the last vector of pixels whole",
        ),
        (
            "const int left = «tile.out_channels - first - v * kLanes<T>»;",
            "tile.out_channels - first - v * kLanes<T> - 1",
            "each channel for itself: the last one is left out",
        ),
    ),
    # ---- winograd ---------------------------------------------------------------------------
    "src/kernels/winograd.inl.hpp": (
        (
            "const auto rest = «static_cast<int>(in.channels - whole)»;",
            "0",
            "channels behind the last whole vector are left out",
        ),
        (
            "return «load_partial(rows.at(i), rest)»;",
            "load(rows.at(i))",
            "reads beyond the last channel",
        ),
        (
            "if (!kWhole && «row >= out.rows») break;",
            "row > out.rows",
            "a tile at the border writes a row too many",
        ),
        (
            "} else if («column < out.columns») {",
            "column <= out.columns",
            "a tile at the border writes a column too many",
        ),
        (
            "const bool whole = «out.rows == Rows::kOutputs && out.columns == Columns::kOutputs»;",
            "out.rows == Rows::kOutputs",
            "a tile at the end of a row counts as whole",
        ),
        (
            "«out.channels - k < kLanes<T> ? static_cast<int>(out.channels - k) : kLanes<T>»;",
            "kLanes<T>",
            "writes beyond the last channel",
        ),
        (
            "out.bias == nullptr ? zero<T>() : load_upto(«out.bias + k», lanes);",
            "out.bias",
            "all vectors get the first one's bias",
        ),
        (
            "for (int lane = 0; «lane < in.lanes»; lane += kLanes<T>) { const T* taps",
            "lane < in.lanes - kLanes<T>",
            "the last vector of a panel of weights is not transformed",
        ),
        (
            "if («i < channels») store_upto<T>(maps + i * channel_stride + p, square[i], count);",
            "i <= channels",
            "a strip writes a channel too many",
        ),
        (
            "const int count = «pixels - p < kLanes<T> ? pixels - p : kLanes<T>»;",
            "kLanes<T>",
            "a strip writes beyond its last pixel",
        ),
    ),
    "src/winograd/execution.cpp": (
        (
            "begin = std::clamp<std::int64_t>(«-columns.first», 0, wanted);",
            "-columns.first - 1",
            "a column in front of a row is loaded",
        ),
        (
            "end = std::clamp<std::int64_t>(«sources - columns.first», begin, wanted);",
            "sources - columns.first + 1",
            "a column behind a row is loaded",
        ),
        (
            "«clear(std::min(wanted, pixels), pixels);»",
            "(void)0;",
            "what no output of a last tile reads is left as it was",
        ),
        (
            "return tile * outputs + inputs <= columns.count && «first >= 0» &&",
            "first >= -1",
            "a tile that reads a column in front counts as inside",
        ),
        (
            "«first + (inputs - 1) * columns.step < width.sources»;",
            "first + (inputs - 1) * columns.step <= width.sources",
            "a tile that reads a column behind counts as inside",
        ),
        (
            "const T* pixel = «column < 0 || row_pixel[v] < 0» ? scratch.zeros",
            "row_pixel[v] < 0",
            "columns of padding are read",
        ),
        (
            "if («run.last_outputs == outputs») { form_.output(out);",
            "true",
            "the last tile of a row is written whole",
        ),
        (
            "const std::int64_t channels = «std::min(product_row_, geometry_.produced - first)»;",
            "product_row_",
            "the last group of panels writes too many channels",
        ),
        (
            "rows = «static_cast<int>(tile_of(run, vertical_axis_).count)»;",
            "static_cast<int>(vertical.tile_outputs)",
            "the last row of tiles is written whole",
        ),
        (
            "if («terms_ == geometry_.reduced») return;",
            "true",
            "weights of channels that fill up a vector are not cleared",
        ),
        (
            "for (std::int64_t term = 0; «term < terms_»; term += term_chunk_) { "
            "const Range terms{term, std::min(terms_, term + term_chunk_)}; "
            "for (std::int64_t panel = 0; panel < panels; ++panel) {",
            "term < terms_ - 1",
            "a chunk of one term is left out",
        ),
        (
            "for (std::int64_t term = 0; «term < terms_»; term += term_chunk_) { "
            "const Range terms{term, std::min(terms_, term + term_chunk_)}; transform_weights(",
            "term < terms_ - 1",
            "weights that are not packed: a chunk of one term is left out",
        ),
    ),
    "src/winograd/geometry.cpp": (
        (
            "return {first, «std::min<std::int64_t>(tile_outputs, extent - index * tile_outputs)»,",
            "tile_outputs",
            "the last tile of an axis counts as whole",
        ),
    ),
    "src/kernels/winograd_gradient.inl.hpp": (
        (
            "const int count = «in.channels - c < kLanes<T> ? in.channels - c : kLanes<T>»;",
            "kLanes<T>",
            "reads beyond the last channel",
        ),
        (
            "for (int lane = 0; «lane < in.lanes»; lane += kLanes<T>) {",
            "lane < in.lanes - kLanes<T>",
            "the last vector of channels gets no gradient",
        ),
    ),
    "src/winograd/weight_gradient.cpp": (
        (
            "if (rows_inside && «first >= 0» && first + grid_.inputs <= width.input) {",
            "first >= -1",
            "a tile that reads a column in front counts as inside",
        ),
        (
            "if (rows_inside && first >= 0 && «first + grid_.inputs <= width.input») {",
            "first + grid_.inputs <= width.input + 1",
            "a tile that reads a column behind counts as inside",
        ),
        (
            "«(width.input - grid_.inputs - first) / grid_.outputs + 1»);",
            "(width.input - grid_.inputs - first) / grid_.outputs + 2",
            "a run of tiles inside has one too many",
        ),
        (
            "row == nullptr || «column >= width.output» ? scratch.zeros",
            "column > width.output",
            "a tile reads a column of the next row of the output's gradient",
        ),
        (
            "? «width.output / grid_.outputs» : 0;",
            "divide_up(width.output, grid_.outputs)",
            "the last tile of a row of the output's gradient counts as whole",
        ),
        (
            "const std::int64_t row = «at >= extent» ? -1",
            "at > extent",
            "a row behind the map is read",
        ),
        (
            "line.first_row >= 0 && «line.first_row + grid_.inputs <= height.input»;",
            "line.first_row + grid_.inputs <= height.input + 1",
            "a tile that reads a row behind counts as inside",
        ),
        (
            "kernels_.transpose(in.rows * taps, «std::min(lanes_, out_ - first)», gradient,",
            "lanes_",
            "the last panel writes more channels than there are",
        ),
        (
            "for (std::int64_t part = 1; «part < parts_»; ++part) {",
            "part < parts_ - 1",
            "the last part is not added",
        ),
    ),
    # ---- fft --------------------------------------------------------------------------------
    "src/kernels/fft_tiles.inl.hpp": (
        (
            "while (band.begin < count && «columns[band.begin] < 0») ++band.begin;",
            "columns[band.begin] < -1",
            "a column of padding counts as neighbour of the first",
        ),
        (
            "band.scattered |= «columns[i] >= 0»;",
            "false",
            "columns that the padding mode gives sources behind are left out",
        ),
        (
            "for (int i = 0; i < count && «i < begin»; ++i)",
            "i < begin - 1",
            "the last column of padding in front is not cleared",
        ),
        (
            "for (int i = end; «i < count»; ++i) store<T>",
            "i < count - 1",
            "the last column of padding behind is not cleared",
        ),
        (
            "whole ? load(at) : «load_partial(at, input_.channels)»);",
            "load(at)",
            "reads beyond the last channel",
        ),
        (
            "load_between<T>(lanes[lane] + first, «begin < 0 ? 0 : begin»,",
            "begin <= 0 ? 0 : begin - 1",
            "a square begins a column early",
        ),
        (
            "«end < kLanes<T> ? end : kLanes<T>», zero<T>());",
            "end < kLanes<T> ? end + 1 : kLanes<T>",
            "a square ends a column late",
        ),
        (
            "return left < 0 ? 0 : «left < count ? static_cast<int>(left) : count»;",
            "count",
            "a tile at the border writes too many columns",
        ),
        (
            "if (tile.data == nullptr || «row >= tile.row») return 0;",
            "row > tile.row",
            "a tile at the border writes a row too many",
        ),
        (
            "load(buffer + i * kLanes<T>), «output.channels»);",
            "kLanes<T>",
            "writes beyond the last channel",
        ),
        (
            "if (some > 0) store_upto<T>(lanes[lane] + first, square[lane], «some»);",
            "kLanes<T>",
            "a square at the border is written whole",
        ),
    ),
    "src/kernels/fft.inl.hpp": (
        (
            "if («y >= weights.rows || x >= weights.columns») return Complex<T>{};",
            "y >= weights.rows",
            "columns beyond the kernel are read",
        ),
        (
            "for (std::int64_t k = 0; «k < p.k»; ++k) {",
            "k < p.k - 1",
            "the last channel is left out of a product of spectra",
        ),
        (
            "store_upto<T>(c, re[r], «p.columns»);",
            "kLanes<T>",
            "a product of spectra writes beyond its columns",
        ),
        (
            "const int some = «count - column < kChunk ? count - column : kChunk»;",
            "kChunk",
            "the last piece of a long line is taken whole",
        ),
        (
            "return «y == 0 ? 0 : shape.y.n - y»;",
            "shape.y.n - 1 - y",
            "frequency 0 is mirrored elsewhere",
        ),
    ),
    "src/fft/execution.cpp": (
        (
            "«std::min(tiling_.tile_rows, l_.height.destinations - at->row)»,",
            "tiling_.tile_rows",
            "the last row of tiles is written whole",
        ),
        (
            "«std::min(tiling_.tile_columns, l_.width.destinations - at->column)»};",
            "tiling_.tile_columns",
            "the last tile of a row is written whole",
        ),
        (
            "if («tile >= tiling_.tiles_y * tiling_.tiles_x») return std::nullopt;",
            "false",
            "an odd last tile has a companion",
        ),
        (
            "product.columns = static_cast<int>(«std::min(l_.lanes, l_.produced - panel * "
            "l_.lanes)»);",
            "l_.lanes",
            "the last panel has too many channels",
        ),
        ("product.accumulate = «chunk > 0»;", "false", "the last chunk replaces the others"),
        (
            "const std::int64_t count = «std::min(l_.lanes, l_.produced - first)»;",
            "l_.lanes",
            "kernels of channels that do not exist are read",
        ),
    ),
    # ---- depthwise --------------------------------------------------------------------------
    "src/kernels/packing.inl.hpp": (
        ("if («!store.clamp») return v;", "true", "limits are not applied"),
        (
            "store_upto<T>(to + i, zero<T>(), «lanes_left<T>(count - i)»);",
            "lanes_left<T>(count - i - 1)",
            "the last element of padding is not cleared",
        ),
        (
            "«store<T>(to + i, load_partial(from + i, static_cast<int>(count - i)));»",
            "store<T>(to + i, zero<T>());",
            "the rest of a row is not packed",
        ),
        (
            "store<T>(to + i, «load_partial(from + i, static_cast<int>(count - i))»);",
            "load(from + i)",
            "reads beyond the row",
        ),
        (
            "const int span = «2 * static_cast<int>(count - i) - 1»;",
            "2 * static_cast<int>(count - i) - 2",
            "steps of 2: the last element is left out",
        ),
        (
            "for (std::int64_t i = 0; «i < count»; ++i) to[i] = from[i * step];",
            "i < count - 1",
            "longer steps: the last element is left out",
        ),
    ),
    "src/kernels/depthwise.inl.hpp": (
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
    "src/algorithms/depthwise.cpp": (
        (
            "channel_part + 1 == channel_parts_ ? «channels_» : vectors.end * lanes};",
            "vectors.end * lanes",
            "channels behind the last whole vector are left out",
        ),
        (
            "*pixels++ = «w < 0» ? call.packed + zeros_begin_ :",
            "false",
            "columns of padding are read",
        ),
        (
            "lists.pointers[listed] = «row != nullptr ? row : call.packed + zeros_begin_»;",
            "row != nullptr ? row : call.packed",
            "rows of padding are not zeros",
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
    # ---- grouped ----------------------------------------------------------------------------
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
    "src/algorithms/grouped.cpp": (
        (
            "*pixels++ = «h < 0 || w < 0» ? zeros :",
            "h < 0",
            "columns of padding are read",
        ),
        (
            "«static_cast<std::int32_t>(std::min(lanes, columns.count - w))»);",
            "static_cast<std::int32_t>(lanes)",
            "the last vector of a row counts as whole",
        ),
        (
            "return «lane < span_ && channel < channels_» ? channel : -1;",
            "lane < span_",
            "weights of channels that do not exist are read",
        ),
        (
            "h < 0 || «plane < 0» ? -1",
            "false",
            "planes of padding are read",
        ),
    ),
    # ---- gradient of weights in groups of few channels --------------------------------------
    "src/kernels/narrow_gradient.inl.hpp": (
        (
            "return kWhole ? load(p) : «load_partial(p, g.lanes)»;",
            "load(p)",
            "reads beyond the last channel",
        ),
        (
            "for (int j = 0; «j < kColumns - 1»; ++j) load_column(j);",
            "j < kColumns - 2",
            "the window begins a column short",
        ),
        (
            "store<T>(to, «load(to) + sum[i][j][c]»);",
            "sum[i][j][c]",
            "forgets what was there",
        ),
        ("if («p == 0») break;", "p < 0", "a run goes on behind its end"),
    ),
    "src/narrow_gradient.cpp": (
        (
            "const std::int64_t from = std::clamp(«divide_up(-first, w.stride)», begin,",
            "divide_up(-first, w.stride) - 1",
            "an output that reads padding in front counts as inside",
        ),
        (
            "std::clamp(«divide_up(w.input - last, w.stride)», from, begin + count)};",
            "divide_up(w.input - last, w.stride) + 1",
            "an output that reads padding behind counts as inside",
        ),
        (
            "for (std::int64_t c = columns.end; «c < block.column + block.columns»; ++c) "
            "add(c, 1);",
            "c < block.column + block.columns - 1",
            "the last column at the border is left out",
        ),
        (
            "for (std::int64_t row = rows.end; «row < block.row + block.rows»; ++row)",
            "row < block.row + block.rows - 1",
            "the last row at the border is left out",
        ),
        (
            "«pad(end, columns.end);»",
            "(void)0;",
            "padding behind a row is not cleared",
        ),
        (
            "«std::min<std::int64_t>(kernels_.lanes, channels - c)»);",
            "kernels_.lanes",
            "the last vector of channels is taken whole",
        ),
        (
            "kernels_.transpose(taps_, «std::min(chunk_, channels_ - first)», total",
            "chunk_",
            "the last chunk writes more channels than there are",
        ),
        (
            "for (std::int64_t part = 1; «part < parts_»; ++part) {",
            "part < parts_ - 1",
            "the last part is not added",
        ),
    ),
    "src/bias_gradient.cpp": (
        ("if («rest == 0») return;", "true", "pixels that fill no row are left out"),
        (
            "for (std::int64_t part = 1; «part < parts»; ++part) {",
            "part < parts - 1",
            "the last part is not added",
        ),
    ),
    # ---- pooling ----------------------------------------------------------------------------
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
            "return «count == kLanes<T> ? load_every_other(p) : load_strided(p, 2, count)»;",
            "load_every_other(p)",
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
            "index | (pixels - index)",
            "an index behind the map is accepted",
        ),
    ),
    "src/pooling/geometry.cpp": (
        (
            "std::min(window.kernel, «ceil_divide(window.input - start, window.dilation)»);",
            "ceil_divide(window.input - start, window.dilation) + 1",
            "a window reaches one element behind the input",
        ),
        (
            "std::max<std::int64_t>(0, «ceil_divide(-start, window.dilation)»);",
            "ceil_divide(-start, window.dilation) - 1",
            "a window reaches one element in front of the input",
        ),
        (
            "«std::min(start + window.kernel, window.input + window.after)» - start);",
            "start + window.kernel",
            "the divisor of a window that outgrows the padding is not clipped",
        ),
        (
            "axis.taps[o] = «ceil_divide((o + 1) * input, output)» - axis.first[o];",
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
    # ---- training ---------------------------------------------------------------------------
    "src/kernels/activation.inl.hpp": (
        (
            "if («i < count») body(i, static_cast<int>(count - i));",
            "false",
            "elements behind the last whole vector are left out",
        ),
    ),
    "src/kernels/normalization.inl.hpp": (
        (
            "if («i < count») take(1, i, static_cast<int>(count - i));",
            "false",
            "moments leave out what fills no vector",
        ),
        (
            ": «load_between(p + i, 0, lanes, about)»;",
            "load_partial(p + i, lanes)",
            "lanes behind a plane count as zeros",
        ),
        ("if («pending > 0») fold(pending);", "false", "the last block of planes is left out"),
        (
            "for (; «r < end»; ++r) add_rows<1>(",
            "r < end - 1",
            "the last row of a block is left out",
        ),
        (
            "moments.squares[c] = 0; for (std::int64_t begin = 0; «begin < rows»; "
            "begin += kRowBlock) {",
            "begin + kRowBlock <= rows || begin == 0",
            "moments leave out a last block of rows that is short",
        ),
        (
            "for (std::int64_t begin = 0; «begin < n.rows»; begin += kRowBlock) {",
            "begin + kRowBlock <= n.rows || begin == 0",
            "gradients leave out a last block of rows that is short",
        ),
    ),
    "src/training/batch_norm.cpp": (
        (
            "for (std::int64_t part = 1; «part < pieces_.parts»; ++part) { kernels_.merge_moments",
            "part < pieces_.parts - 1",
            "the last part is not merged",
        ),
        (
            "for (std::int64_t part = 0; «part < pieces_.parts»; ++part) { sum +=",
            "part < pieces_.parts - (pieces_.parts > 1)",
            "the gradient of the last part is not added",
        ),
        (
            "body(«std::max(range.begin, end - block)», end);",
            "end - block",
            "the first block of a thread begins before its rows",
        ),
    ),
    "src/kernels/softmax.inl.hpp": (
        (
            "if («i < count») body(i, i, static_cast<int>(count - i), kChains - 1);",
            "false",
            "classes behind the last whole vector are left out",
        ),
        (
            "for (; «j < count»; ++j) body(j * stride, j, used, 0);",
            "j < count - 1",
            "lanes of distributions: the last class is left out",
        ),
        (
            "return lanes == kLanes<T> ? load(p) : «load_between(p, 0, lanes, fill)»;",
            "load_partial(p, lanes)",
            "lanes behind the classes count as zeros",
        ),
        (
            "const int lanes = «stacked - i < kLanes<T> ? static_cast<int>(stacked - i) : "
            "kLanes<T>»;",
            "kLanes<T>",
            "lanes of distributions: the last vector is taken whole",
        ),
        (
            "const int last = «static_cast<int>(pass.count) - (kVectors - 1) * kLanes<T>»;",
            "static_cast<int>(pass.count) - (kVectors - 1) * kLanes<T> - 1",
            "few classes: the last one is left out",
        ),
        (
            "store_partial<T>(valid, term, «lanes»);",
            "lanes - 1",
            "smoothing leaves out the last class",
        ),
    ),
    "src/training/softmax.cpp": (
        (
            "«std::min(width, shape_.inner - begin)», width,",
            "width",
            "the last block of distributions is taken whole",
        ),
    ),
    "src/training/elementwise.cpp": (
        (
            "const std::int64_t end = «std::min(count, range.end * kGrain)»;",
            "range.end * kGrain",
            "the last grain of elements is taken whole",
        ),
    ),
}
