// A device guard that does nothing, with which a torch built for CPUs holds fake CUDA tensors.
#include <c10/core/impl/DeviceGuardImplInterface.h>

struct NoGuard final : c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA> {
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
};

namespace c10::impl {
C10_REGISTER_GUARD_IMPL(CUDA, NoGuard)
}
