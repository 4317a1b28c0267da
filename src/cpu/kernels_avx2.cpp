#define HATA_ISA avx2

#include "cpu/kernels.h"
#include "cpu/vec_avx2.h"
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

const Kernels kAvx2Kernels = {
    SimdLevel::avx2,    avx2::encode,       avx2::key_norms,
    avx2::dots,         avx2::score,        avx2::score_squares,
    avx2::collect,      avx2::count_above,  avx2::keep,
    avx2::attend,       avx2::prefill,      avx2::to_floats,
    avx2::channel_dots, avx2::floats_above, avx2::count_floats_above,
    avx2::exp_all,      avx2::count_equal,  avx2::q4_encode,
    avx2::q4_logits,
};

}  // namespace hata::cpu
