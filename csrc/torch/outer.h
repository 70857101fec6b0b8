// outer_update_ for every device: checks, and the list of sides that a device's kernels update.
#pragma once

#include "csrc/core/outer.h"

#include <optional>
#include <string>

#include "csrc/torch/batch.h"

namespace kronext {

// Adds the sides of one (batched) gradient with one of its factors.
inline void add_sides(const char* op, const char* name, const TensorView& factor,
                      const TensorView& g, bool left, double decay, double weight,
                      std::vector<OuterSide>& sides) {
  check_same_device(op, name, factor, "G", g);
  check_matrices(op, "G", g);
  check_square(op, name, factor);
  check_dense(op, name, factor);
  const Dtype g_dtype = check_dtype(op, "G", g), dtype = check_factor_dtype(op, name, factor);
  const int64_t dim = left ? g.rows() : g.columns();
  check(factor.rows() == dim, op, name, " must be ", dim, " x ", dim, " for G of shape ",
        shape_text(g), " (got ", name, ".shape=", shape_text(factor), ")");
  const Shape batch = batch_shape(factor);
  check(broadcast(op, batch, batch_shape(g)) == batch, op,
        "the batch dimensions of G must broadcast to those of ", name,
        " (got G.shape=", shape_text(g), ", ", name, ".shape=", shape_text(factor), ")");
  const BatchView gradients(g, batch), factors(factor, batch);
  for (int64_t i = 0, count = element_count(batch); i < count; ++i) {
    const Matrix x = matrix_at(g, g_dtype, gradients.offset(i));
    sides.push_back(
        {left ? x : x.transposed(), matrix_at(factor, dtype, factors.offset(i)), decay, weight});
  }
}

// Updates sides on the device of a tensor: what each device brings of its own.
using UpdateSides = void (*)(const char* op, const Tensor& where, std::vector<OuterSide>& sides);

inline void check_written(const char* op, const std::vector<OuterSide>& sides) {
  check_disjoint(op, sides, [](const OuterSide& side) -> const Matrix& { return side.factor; });
}

template <UpdateSides update>
void outer_update_(const std::optional<Tensor>& l, const std::optional<Tensor>& r, const Tensor& g,
                   double decay, double weight) {
  const char* op = "outer_update_";
  std::vector<OuterSide> sides;
  check(l || r, op, "L or R must be given (got L=None, R=None)");
  check_finite(op, "decay", decay);
  check_finite(op, "weight", weight);
  if (l) add_sides(op, "L", *l, g, true, decay, weight, sides);
  if (r) add_sides(op, "R", *r, g, false, decay, weight, sides);
  check_written(op, sides);
  update(op, g, sides);
}

// The factors of one side of a list, one for each gradient. Where some gradients have none,
// `places` says for each where its factor is among them, and -1 for none.
struct FactorList {
  const char* name;
  const std::vector<Tensor>& factors;
  const std::vector<int64_t>& places;

  void check_places(const char* op, size_t gradients) const {
    const size_t entries = places.empty() ? factors.size() : places.size();
    check(entries == 0 || entries == gradients, op, name, " must be as long as Gs (got len(", name,
          ")=", entries, ", len(Gs)=", gradients, ")");
    for (int64_t place : places) {
      check(place < int64_t(factors.size()), op, "places must be among the factors (got ", place,
            " of ", factors.size(), ")");
    }
  }

  const Tensor* of(size_t gradient) const {
    if (factors.empty()) return nullptr;
    if (places.empty()) return &factors[gradient];
    return places[gradient] < 0 ? nullptr : &factors[size_t(places[gradient])];
  }
};

template <UpdateSides update>
void outer_update_list_(const std::vector<Tensor>& ls, const std::vector<Tensor>& rs,
                        const std::vector<Tensor>& gs, const std::vector<double>& decays,
                        const std::vector<double>& weights, const std::vector<int64_t>& left_places,
                        const std::vector<int64_t>& right_places) {
  const char* op = "outer_update_list_";
  const FactorList lefts{"Ls", ls, left_places}, rights{"Rs", rs, right_places};
  lefts.check_places(op, gs.size());
  rights.check_places(op, gs.size());
  check_scalars(op, "decay", decays, gs.size());
  check_scalars(op, "weight", weights, gs.size());
  std::vector<OuterSide> sides;
  sides.reserve(ls.size() + rs.size());
  const Tensor* first = nullptr;
  for (size_t i = 0; i < gs.size(); ++i) {
    const Tensor *l = lefts.of(i), *r = rights.of(i);
    if (!l && !r) continue;
    const double decay = scalar_at(decays, i), weight = scalar_at(weights, i);
    const TensorView g(gs[i]);
    if (!first) first = &gs[i];
    check_same_device(op, "G", g, "the first G", *first);
    if (l) add_sides(op, "L", *l, g, true, decay, weight, sides);
    if (r) add_sides(op, "R", *r, g, false, decay, weight, sides);
  }
  check_written(op, sides);
  if (first) update(op, *first, sides);
}

}  // namespace kronext
