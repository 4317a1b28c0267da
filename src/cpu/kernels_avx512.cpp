#define HATA_ISA avx512

#include "cpu/kernels.h"
#include "cpu/vec_avx512.h"
// The stages over these vectors.
#include "cpu/attend_impl.h"
#include "cpu/encode_impl.h"
#include "cpu/prefill_impl.h"
#include "cpu/q4_impl.h"
#include "cpu/rank_impl.h"
#include "cpu/score_impl.h"
#include "cpu/select_impl.h"

namespace hata::cpu {

const Kernels kAvx512Kernels = {
    SimdLevel::avx512vpopcnt,
    avx512::encode,
    avx512::key_norms,
    avx512::dots,
    avx512::score,
    avx512::score_squares,
    avx512::collect,
    avx512::count_above,
    avx512::keep,
    avx512::attend,
    avx512::prefill,
    avx512::to_floats,
    avx512::channel_dots,
    avx512::floats_above,
    avx512::count_floats_above,
    avx512::exp_all,
    avx512::count_equal,
    avx512::q4_encode,
    avx512::q4_logits,
};

}  // namespace hata::cpu
