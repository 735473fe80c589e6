// A device for tests, where there is no GPU: its memory is the processor's, its arithmetic torch's for processors, and
// it refuses what a GPU would refuse: operands that do not lie on it.
#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cstdlib>
#include <set>

namespace {

using at::Tensor;
constexpr auto kind = c10::DeviceType::PrivateUse1;

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    void* data = size ? std::aligned_alloc(64, (size + 63) / 64 * 64) : nullptr;
    return {data, data, &std::free, c10::Device(kind, 0)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &std::free; }
  void copy_data(void* to, const void* from, size_t size) const override { default_copy_data(to, from, size); }
};
Memory memory;
REGISTER_ALLOCATOR(kind, &memory);
struct Hooks final : at::PrivateUse1HooksInterface {
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
};
const bool registered = (at::RegisterPrivateUse1HooksInterface(new Hooks), true);  // for as long as the process lives

// One device, one stream, on which everything is done when the call returns.
struct Guard final : c10::impl::NoOpDeviceGuardImpl<kind> {
  c10::Device exchangeDevice(c10::Device) const override { return {kind, 0}; }
  c10::Device getDevice() const override { return {kind, 0}; }
  c10::Stream getStream(c10::Device) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, {kind, 0}); }
  c10::Stream getNewStream(c10::Device device, int) const override { return getStream(device); }
  c10::Stream exchangeStream(c10::Stream stream) const noexcept override { return stream; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

Tensor empty(c10::SymIntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
             std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  const auto type = dtype.value_or(at::get_default_dtype_as_scalartype());
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   type, format);
}

Tensor empty_strided(c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<at::ScalarType> dtype,
                     std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  const auto type = dtype.value_or(at::get_default_dtype_as_scalartype());
  return at::detail::empty_strided_generic(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &memory,
                                           c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), type);
}

// The same numbers as a tensor of the processor's.
Tensor seen(const Tensor& tensor) {
  if (!tensor.is_privateuseone()) return tensor;
  return at::from_blob(const_cast<void*>(tensor.storage().data()), tensor.sizes(), tensor.strides(),
                       tensor.storage_offset(), [](void*) {}, tensor.options().device(at::kCPU), at::kCPU);
}

Tensor copy_from(const Tensor& self, const Tensor& to, bool) {
  at::NoGradGuard guard;
  seen(to).copy_(seen(self));
  return to;
}

Tensor copy_from_and_resize(const Tensor& self, const Tensor& to) {
  at::native::resize_(to, self.sizes(), std::nullopt);
  return copy_from(self, to, false);
}

at::Scalar number(const Tensor& self) { return seen(self).item(); }

const Tensor& resize(const Tensor& self, c10::SymIntArrayRef size, std::optional<at::MemoryFormat> format) {
  return at::native::resize_(self, C10_AS_INTARRAYREF_SLOW(size), format);
}

Tensor view(const Tensor& self, c10::SymIntArrayRef size) { return at::native::view(self, C10_AS_INTARRAYREF_SLOW(size)); }

Tensor as_strided(const Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                  std::optional<c10::SymInt> offset) {
  return at::native::as_strided_tensorimpl(
      self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride),
      offset ? std::optional<int64_t>(offset->guard_int(__FILE__, __LINE__)) : std::nullopt);
}

Tensor reshape_alias(const Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  return at::native::_reshape_alias(self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride));
}

Tensor convolve(const Tensor& x, const Tensor& w, const std::optional<Tensor>& b, c10::SymIntArrayRef stride,
                c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, bool transposed,
                c10::SymIntArrayRef output_padding, c10::SymInt groups) {
  TORCH_CHECK(x.is_privateuseone() && w.is_privateuseone(), "convolution of tensors on different devices");
  return at::convolution_symint(x.cpu(), w.cpu(), b && b->defined() ? std::optional<Tensor>(b->cpu()) : std::nullopt,
                                stride, padding, dilation, transposed, output_padding, groups)
      .to(x.device());
}

std::tuple<Tensor, Tensor, Tensor> convolve_back(const Tensor& dy, const Tensor& x, const Tensor& w,
                                                 c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
                                                 c10::SymIntArrayRef dilation, bool transposed,
                                                 c10::SymIntArrayRef output_padding, c10::SymInt groups,
                                                 std::array<bool, 3> mask) {
  TORCH_CHECK(dy.is_privateuseone() && x.is_privateuseone() && w.is_privateuseone(), "convolution of tensors on different devices");
  const c10::SymInt biases[] = {dy.sym_size(1)};
  auto [dx, dw, db] = at::convolution_backward_symint(dy.cpu(), x.cpu(), w.cpu(), c10::SymIntArrayRef(biases), stride, padding,
                                                      dilation, transposed, output_padding, groups, mask);
  auto back = [&](const Tensor& t) { return t.defined() ? t.to(x.device()) : t; };
  return {back(dx), back(dw), back(db)};
}

// Its schema does not say that running statistics change, so that falling back would lose them.
std::tuple<Tensor, Tensor, Tensor> normalise(const Tensor& x, const std::optional<Tensor>& weight,
                                             const std::optional<Tensor>& bias, const std::optional<Tensor>& mean,
                                             const std::optional<Tensor>& var, bool training, double momentum, double eps) {
  const auto here = [](const std::optional<Tensor>& t) {
    TORCH_CHECK(!t || !t->defined() || t->is_privateuseone(), "normalisation of tensors on different devices");
    return t && t->defined() ? std::optional<Tensor>(seen(*t)) : std::nullopt;
  };
  auto [y, first, second] =
      at::native_batch_norm(seen(x), here(weight), here(bias), here(mean), here(var), training, momentum, eps);
  return {y.to(x.device()), first.to(x.device()), second.to(x.device())};
}

// Everything else: by the processor, if all operands lie here. Numbers may come from the host, and places of an index.
void fall_back(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  static const std::set<std::string> indexing = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"};
  const auto& name = op.schema().name();
  if (!indexing.count(name)) {
    const auto check = [&](const Tensor& t) {
      TORCH_CHECK(!t.defined() || t.dim() == 0 || t.is_privateuseone(), name, ": an operand of shape ", t.sizes(),
                  " lies on ", t.device(), ", another one on the device");
    };
    for (const auto& value : torch::jit::last(*stack, op.schema().arguments().size())) {
      if (value.isTensor()) check(value.toTensor());
      if (value.isTensorList())
        for (const Tensor& t : value.toTensorVector()) check(t);
    }
  }
  at::native::cpu_fallback(op, stack);
}

}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fall_back>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("_local_scalar_dense", number);
  m.impl("resize_", resize);
  m.impl("view", view);
  m.impl("as_strided", as_strided);
  m.impl("_reshape_alias", reshape_alias);
  m.impl("unfold", &at::native::unfold);
  m.impl("set_.source_Storage", &at::native::set_);
  m.impl("convolution_overrideable", convolve);
  m.impl("convolution_backward_overrideable", convolve_back);
  m.impl("native_batch_norm", normalise);
  // Those for unknown devices know no channels last, which GPUs' own do.
  m.impl("native_group_norm", torch::CppFunction::makeFromBoxedFunction<&fall_back>());
}
