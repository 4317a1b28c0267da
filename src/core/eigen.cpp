#include "core/eigen.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace hata {
namespace {

// Jacobi's method: rotations in planes (p, q) make the elements off the diagonal vanish.
class Jacobi {
 public:
  Jacobi(std::vector<double> m, int n) : m_(std::move(m)), v_(m_.size(), 0.0), n_(n) {
    for (int i = 0; i < n; ++i) vector(i)[i] = 1.0;
  }

  void sweep() {
    for (int p = 0; p < n_; ++p) {
      for (int q = p + 1; q < n_; ++q) rotate(p, q);
    }
  }

  double off_diagonal() const {
    double sum = 0.0;
    for (int i = 0; i < n_; ++i) {
      for (int j = 0; j < i; ++j) sum += m_[i * n_ + j] * m_[i * n_ + j];
    }
    return sum;
  }

  double value(int i) const { return m_[i * n_ + i]; }
  double* vector(int i) { return v_.data() + static_cast<size_t>(i) * n_; }  // as a row

 private:
  double* row(int i) { return m_.data() + static_cast<size_t>(i) * n_; }

  void rotate(int p, int q) {
    const double element = row(p)[q];
    if (element == 0.0) return;
    const double theta = (row(q)[q] - row(p)[p]) / (2.0 * element);
    const double t = std::copysign(1.0, theta) / (std::abs(theta) + std::sqrt(theta * theta + 1.0));
    const double c = 1.0 / std::sqrt(t * t + 1.0);
    const double s = t * c;
    turn(row(p), row(q), c, s);
    for (int i = 0; i < n_; ++i) {
      const double a = row(i)[p];
      const double b = row(i)[q];
      row(i)[p] = c * a - s * b;
      row(i)[q] = s * a + c * b;
    }
    turn(vector(p), vector(q), c, s);
  }

  void turn(double* a, double* b, double c, double s) const {
    for (int i = 0; i < n_; ++i) {
      const double x = a[i];
      const double y = b[i];
      a[i] = c * x - s * y;
      b[i] = s * x + c * y;
    }
  }

  std::vector<double> m_, v_;
  int n_;
};

}  // namespace

std::vector<double> eigenvectors(std::vector<double> m, int n) {
  constexpr int kMaxSweeps = 30;
  double size = 0.0;
  for (const double x : m) size += x * x;
  Jacobi jacobi(std::move(m), n);
  for (int i = 0; i < kMaxSweeps && jacobi.off_diagonal() > 1e-24 * size; ++i) jacobi.sweep();

  std::vector<int> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return jacobi.value(a) > jacobi.value(b); });
  std::vector<double> columns(static_cast<size_t>(n) * n);
  for (int c = 0; c < n; ++c) {
    const double* vector = jacobi.vector(order[static_cast<size_t>(c)]);
    for (int i = 0; i < n; ++i) columns[static_cast<size_t>(i) * n + c] = vector[i];
  }
  return columns;
}

}  // namespace hata
