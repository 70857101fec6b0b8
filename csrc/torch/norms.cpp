// The 2-norms of a list of tensors in one call. An optimizer takes three for each parameter and
// step: of the gradient, the grafted step and the direction.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cmath>

#include "csrc/cpu/kernels.h"
#include "csrc/torch/batch.h"
#include "csrc/torch/parallel.h"

namespace kronext {

using torch::headeronly::ScalarType;

// Entries that a thread takes at a time: large tensors are shared. Fixed, so that no result depends
// on the number of threads.
static constexpr int64_t kEntriesOfTask = 1 << 16;

// Whether the entries fill one stretch of memory, in any order of dimensions.
static bool is_stretch(const TensorView& t) {
  std::vector<int64_t> order;
  for (int64_t d = 0; d < t.dim(); ++d) {
    if (t.size(d) != 1) order.push_back(d);
  }
  std::ranges::sort(order, {}, [&](int64_t d) { return t.stride(d); });
  int64_t expected = 1;
  for (int64_t d : order) {
    if (t.stride(d) != expected) return false;
    expected *= t.size(d);
  }
  return true;
}

static Tensor norms(const std::vector<Tensor>& tensors) {
  const char* op = "norms";
  check(!tensors.empty(), op, "tensors must not be empty (got len(tensors)=0)");
  const TensorView first(tensors[0]);
  std::vector<Tensor> copies;
  std::vector<Stretch> tasks;
  std::vector<size_t> ends;
  for (const Tensor& tensor : tensors) {
    const TensorView view(tensor);
    check_same_device(op, "a tensor", view, "the first", first);
    const Dtype dtype = check_dtype(op, "a tensor", view);
    const int64_t count = view.element_count(), item = bytes_of(dtype);
    const char* data = static_cast<const char*>(view.data());
    if (count && !is_stretch(view)) {
      copies.push_back(torch::stable::contiguous(tensor));
      data = static_cast<const char*>(copies.back().data_ptr());
    }
    for (int64_t begin = 0; begin < count; begin += kEntriesOfTask) {
      tasks.push_back({data + begin * item, dtype, std::min(kEntriesOfTask, count - begin)});
    }
    ends.push_back(tasks.size());
  }
  std::vector<double> parts(tasks.size());
  const SquaredNorm squared_norm = cpu::kernels().squared_norm;
  double work = 0;
  for (const Stretch& task : tasks) work += double(task.count);
  run_tasks(int64_t(tasks.size()), worker_count(int64_t(tasks.size()), work),
            [&](int64_t task, int64_t) { parts[task] = squared_norm(tasks[task]); });

  const bool wide = first.is_float64();
  const Tensor result =
      empty_on_cpu({int64_t(tensors.size())}, wide ? ScalarType::Double : ScalarType::Float);
  size_t part = 0;
  for (size_t i = 0; i < ends.size(); ++i) {
    double sum = 0;
    for (; part < ends[i]; ++part) sum += parts[part];
    if (wide) {
      static_cast<double*>(result.data_ptr())[i] = std::sqrt(sum);
    } else {
      static_cast<float*>(result.data_ptr())[i] = float(std::sqrt(sum));
    }
  }
  return result;
}

STABLE_TORCH_LIBRARY_FRAGMENT(kronext, m) { m.def("norms(Tensor[] tensors) -> Tensor"); }

STABLE_TORCH_LIBRARY_IMPL(kronext, CPU, m) { m.impl("norms", TORCH_BOX(&norms)); }

}  // namespace kronext
