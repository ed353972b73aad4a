#pragma once
// Settings of torch that its stable ABI does not reach, through Python.

namespace scav {

// torch.backends.mkldnn.enabled: oneDNN may be used.
bool onednn_is_enabled();

// torch.backends.mkldnn.matmul.fp32_precision is "bf16", as after torch.set_float32_matmul_precision("medium"):
// products of float32 may be of bfloat16.
bool float32_may_be_bfloat16();

// torch.set_num_threads(1)
void use_one_thread();

}  // namespace scav
