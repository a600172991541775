"""Sums of kernel columns over planes as they lie."""

from __future__ import annotations

MUTATIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "src/kernels/column_sums.inl.hpp": (
        (
            "begin_ = «p.begin > 0 ? p.begin - 1 : 0»;",
            "p.begin",
            "a piece has no sums of the vector before it",
        ),
        (
            "end_ = «p.end < vectors_ ? p.end + 1 : vectors_»;",
            "p.end",
            "a piece ends without the vector behind it",
        ),
        (
            "p.columns_inside + «(begin_ > 0 ? begin_ - 1 : 0) % p.period» * kKernel;",
            "0",
            "the second piece begins with the lanes of the first",
        ),
        (
            "broadcast(p.bias[«group * kOutputs + m»])",
            "m",
            "all groups get the bias of the first",
        ),
        (
            "const T* source = p.source + «c * p.source_channel_stride» + p.first_row;",
            "0",
            "all channels of a group are the first",
        ),
        (
            "StreamedWeights<T>{weight + «p.plane_taps[n] * kOutputs»}",
            "n * kKernel * kKernel * kOutputs",
            "planes that do not exist keep their weights",
        ),
        (
            "weights(p.weight + «p.plane_taps[0]»);",
            "0",
            "the only plane has the weights of the first",
        ),
        (
            "while («at.v < inner_end_») step<1, true>",
            "false",
            "whole vectors that are left alone are taken for borders",
        ),
        (
            "x[n] = «kInside» ? load(row + n * kLanes<T>)",
            "true",
            "rows above and below the plane are read",
        ),
        (
            "return «inside == p.columns_inside + p.period * kKernel» ? p.columns_inside : inside;",
            "false",
            "lanes inside are read beyond their period",
        ),
        (
            "sums.of[m][kCentre], left, LaneSet{at.inside[«j»]});",
            "kCentre",
            "pixels of the row above are added on the left",
        ),
        (
            "add_lanes<T>(sum, right, LaneSet{at.inside[«j»]})",
            "kCentre",
            "pixels of the row below are added on the right",
        ),
        (
            "load(p.bias + «turn(v) * kLanes<T>»)",
            "0",
            "in turn: all vectors get the bias of the first",
        ),
        (
            "p.weight + «turn(v) * p.taps * kLanes<T>»;",
            "0",
            "in turn: all vectors have the weights of the first",
        ),
        (
            "«left < kLanes<T> ? static_cast<int>(left) : kLanes<T>»); } }",
            "kLanes<T>",
            "the last vector is written whole",
        ),
    ),
    "src/column_sums/in_turn.cpp": (
        (
            "if («call.source.pixel_stride != channels_» || call.output.pixel_stride",
            "false",
            "channels between those that are read are taken for them",
        ),
        (
            "|| «call.output.pixel_stride != channels_») {",
            "false",
            "channels between those that are written are overwritten",
        ),
        (
            "[«turn * table_.lanes + lane»] = bias",
            "lane",
            "all turns have the bias of the last",
        ),
        (
            "return («turn * table_.lanes + lane») % channels_;",
            "lane",
            "all turns are the first",
        ),
        (
            "epilogue.rest(sample, 0, «(place + range.begin) / channels_»),",
            "place + range.begin",
            "the residual of a piece is taken from too far",
        ),
    ),
    "src/column_sums/tables.cpp": (
        (
            "piece_vectors_ = «round_up(divide_up(vectors_, divide_up(vectors_, kPieceVectors)), "
            "step)»;",
            "divide_up(vectors_, divide_up(vectors_, kPieceVectors))",
            "a piece ends within a pixel",
        ),
        (
            "+ «(j - kernel / 2) * step»;",
            "j - kernel / 2",
            "in turn: columns beside a row's end are those of planes",
        ),
        (
            "«(distance < 0 ? lanes : 0)»;",
            "0",
            "in turn: columns to the left are read from the vector before",
        ),
        (
            "std::clamp<std::int64_t>(«divide_up(-first_row_, lanes)», 0, vectors_);",
            "-first_row_ / lanes",
            "a vector that begins above the plane is taken for an inner one",
        ),
        (
            "std::clamp<std::int64_t>(«(source_pixels - last_row) / lanes», inner_.begin,",
            "divide_up(source_pixels - last_row, lanes)",
            "a vector that ends below the plane is taken for an inner one",
        ),
        (
            "return «first + lane >= 0» && first + lane < source_pixels;",
            "true",
            "pixels above the plane are read",
        ),
        (
            "return «column >= 0» && column < columns_;",
            "true",
            "the last pixels of a row are neighbours of the next row's first",
        ),
        (
            "planes_.push_back(«plane * source_pixels»);",
            "0",
            "all planes of a depth are the first",
        ),
    ),
    "src/column_sums/column_sums.cpp": (
        (
            "const std::int64_t reduced_stride = «adjoint_ ? in * taps : taps»;",
            "taps",
            "backward-input: outputs of a group have each other's weights",
        ),
        (
            "? std::min({«most», problem_.groups - group, kMostTogether})",
            "problem_.groups",
            "channels of another thread are written too",
        ),
        (
            "? std::min({most, «problem_.groups - group», kMostTogether})",
            "kMostTogether",
            "channels of the next sample follow those of this one",
        ),
        (
            "static_cast<int>(«groups * produced_»),",
            "produced_",
            "the residual is added to the first group only",
        ),
        (
            "T* output = call.output.sample(sample, channel) + «place»;",
            "0",
            "all planes of the output are the first",
        ),
    ),
}
