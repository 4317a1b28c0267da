#define HATA_ISA scalar

#include "cpu/kernels.h"
#include "cpu/vec_scalar.h"
// What they lack.
#include "cpu/select_portable.h"
// The stages over these vectors.
#include "cpu/attend_impl.h"
#include "cpu/encode_impl.h"
#include "cpu/prefill_impl.h"
#include "cpu/q4_impl.h"
#include "cpu/rank_impl.h"
#include "cpu/score_impl.h"
#include "cpu/select_impl.h"

namespace hata::cpu {

const Kernels kScalarKernels = {
    SimdLevel::scalar,    scalar::encode,       scalar::key_norms,
    scalar::dots,         scalar::score,        scalar::score_squares,
    scalar::collect,      scalar::count_above,  scalar::keep,
    scalar::attend,       scalar::prefill,      scalar::to_floats,
    scalar::channel_dots, scalar::floats_above, scalar::count_floats_above,
    scalar::exp_all,      scalar::count_equal,  scalar::q4_encode,
    scalar::q4_logits,
};

}  // namespace hata::cpu
