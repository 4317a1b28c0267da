// Eigenvectors of a symmetric matrix.
#pragma once

#include <vector>

namespace hata {

/// The orthonormal eigenvectors of the symmetric m [n][n], as columns of the result [n][n], the
/// largest eigenvalue's first.
std::vector<double> eigenvectors(std::vector<double> m, int n);

}  // namespace hata
