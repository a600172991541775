"""implicit_gemm."""

from __future__ import annotations

MUTATIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
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
            "std::min({«destinations_[1]», block.row + block_rows_, block.row + rows.end - row});",
            "block.row + rows.end - row",
            "a block of rows runs into the next plane",
        ),
    ),
    "src/implicit_gemm/channel_lanes.cpp": (
        (
            "const std::int64_t panels_width = «(products.panels.end - products.panels.begin) * "
            "this->panel_width_»;",
            "this->panel_width_",
            "pixels of two panels lie over one another",
        ),
        (
            "tile.source = source + «k->begin * tile.source_channel_stride»;",
            "k->begin",
            "channels apart: a later k block reads those of the first",
        ),
        (
            "T* tiles = «reinterpret_cast<T*>(extra + list_bytes())»;",
            "reinterpret_cast<T*>(lists)",
            "the tiles of channels_first overwrite the taps that are listed",
        ),
        (
            "tile.edges = («column == segment.columns.begin» ? kFirstPixel",
            "false",
            "the first pixel of a tile is not known for one",
        ),
        (
            "(«line.column + run.end == segment.columns.end» ? kLastPixel",
            "false",
            "the last pixel of a tile is not known for one",
        ),
        (
            "output_step = line.down ? «height.step * this->outputs_[2]» : width.step;",
            "width.step",
            "the pixels of a column are written side by side",
        ),
        (
            "tile.source_pixel_stride = line.down ? «sources.row_stride» : sources.pixel_stride;",
            "sources.pixel_stride",
            "the pixels of a column read those of a row",
        ),
        (
            ": line.down          ? «phase_columns» * panels_width",
            "1",
            "channels_first: the tiles of a column lie side by side",
        ),
        (
            "return {std::max(band.begin, block.row), «std::min(band.end, block.row_end)»};",
            "band.end",
            "a column of tiles runs into the rows of the next block",
        ),
        (
            "return {«std::max(band.begin, block.row)», std::min(band.end, block.row_end)};",
            "band.begin",
            "rows with the same taps as those of an earlier block have no columns of tiles",
        ),
        (
            "count >= band.end - band.begin || «segment.padded»)",
            "false",
            "a column of tiles forgets which of its taps are padding",
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
            "tile.columns = at_once ? column_end - column : "
            "«std::min<std::int64_t>(shape.columns, column_end - column)»;",
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
            "clear({zeros ? end : pixels, «read»}, strip);",
            "pixels",
            "the last vector of a row is computed with what lay in memory",
        ),
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
            "pad(source, line, offset, {end, «pixels»}, strip);",
            "pixels - 1",
            "the last column of padding is not packed",
        ),
        (
            "kernels_.clear_rows(channels_, «pixels.end - pixels.begin», strip + pixels.begin, "
            "step_ * residue_);",
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
            "std::clamp<std::int64_t>(«divide_up(-tap.offset, axis.source_step)», 0, axis.count);",
            "divide_up(-tap.offset, axis.source_step) - 1",
            "a column takes a tap that reads in front of the row",
        ),
        (
            "std::clamp(«divide_up(sources - tap.offset, axis.source_step)», begin, axis.count)};",
            "divide_up(sources - tap.offset, axis.source_step) + 1",
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
        (
            "piece.columns = «left < most ? left : most»;",
            "most",
            "the last piece of a line has columns beyond its end",
        ),
        ("if («tile.continues») s =", "false", "sums of earlier terms are lost"),
        (
            "if («tile.columns <= kLanes<T> / 2») { pixel_tile_of<T, HalfVec<T>,",
            "true",
            "columns beyond half a vector are lost",
        ),
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
}
