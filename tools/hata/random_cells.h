// Random keys and values of realistic size, made quickly.
#pragma once

#include <cstddef>
#include <cstdint>

#include "hata/team.h"

namespace hata::cli {

/// n f16 numbers, close to normal with mean 0 and standard deviation 1.
void fill_normal(uint16_t* data, size_t n, uint64_t seed, Team& team);

}  // namespace hata::cli
