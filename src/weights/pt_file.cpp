#include "weights/pt_file.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>

#include "core/f16.h"
#include "hata/types.h"
#include "weights/pickle.h"
#include "weights/zip_file.h"

namespace hata::weights {
namespace {

using Kind = PickleValue::Kind;

constexpr uint64_t kMaxPickle = 1 << 22;   // bytes
constexpr int64_t kMaxElements = 1 << 27;  // of a file: 80 layers of 8 heads of 128 x 256 have 2^24
constexpr size_t kMaxDims = 8;
constexpr int kMaxDepth = 16;            // of dicts and lists within one another
constexpr int64_t kMaxVisits = 1 << 16;  // values shared by many lists count each time

struct Dtype {
  std::string_view storage;
  const char* name;
  size_t size;  ///< bytes of an element
};
constexpr Dtype kDtypes[] = {{"torch.FloatStorage", "f32", 4},
                             {"torch.HalfStorage", "f16", 2},
                             {"torch.BFloat16Storage", "bf16", 2},
                             {"torch.DoubleStorage", "f64", 8}};

// Fit for a message.
bool is_plain(const std::string& text) {
  return text.size() <= 255 &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

template <class T>
T element(const std::string& bytes, int64_t index) {
  T value;
  std::memcpy(&value, bytes.data() + static_cast<size_t>(index) * sizeof(T), sizeof(T));
  return value;
}

float to_float(const Dtype& dtype, const std::string& bytes, int64_t index) {
  const std::string_view name = dtype.name;
  if (name == "f32") return element<float>(bytes, index);
  if (name == "f64") return static_cast<float>(element<double>(bytes, index));
  const auto half = element<uint16_t>(bytes, index);
  return name == "f16" ? f16_to_f32(half) : std::bit_cast<float>(static_cast<uint32_t>(half) << 16);
}

class TensorReader {
 public:
  TensorReader(std::string_view pickle, const ReadStorage& read, const std::string& name)
      : name_(name), pickle_(parse_pickle(pickle, name)), read_(read) {}

  std::vector<PtTensor> read() {
    visit(pickle_.root, "", 0);
    if (tensors_.empty()) throw Error(name_ + ": holds no tensor");
    return std::move(tensors_);
  }

 private:
  [[noreturn]] void fail(const std::string& where, const std::string& what) const {
    throw Error(name_ + ": tensor '" + where + "': " + what);
  }

  const PickleValue& at(uint32_t index) const { return pickle_.values[index]; }

  // Tensors wherever they are in dicts and lists; numbers, text and None beside them are no matter.
  void visit(uint32_t index, const std::string& where, int depth) {
    const PickleValue& value = at(index);
    if (depth > kMaxDepth) fail(where, "nested more than " + std::to_string(kMaxDepth) + " deep");
    if (++visits_ > kMaxVisits) fail(where, "more than " + std::to_string(kMaxVisits) + " values");
    const auto below = [&](const std::string& key) {
      return where.empty() ? key : where + "." + key;
    };
    if (value.kind == Kind::call) {
      read_tensor(value, where);
    } else if (value.kind == Kind::list || value.kind == Kind::tuple) {
      for (size_t i = 0; i < value.items.size(); ++i) {
        visit(value.items[i], below(std::to_string(i)), depth + 1);
      }
    } else if (value.kind == Kind::dict) {
      for (size_t i = 0; i < value.items.size(); i += 2) {
        visit(value.items[i + 1], below(key_text(at(value.items[i]), where)), depth + 1);
      }
    }
  }

  std::string key_text(const PickleValue& key, const std::string& where) const {
    if (key.kind == Kind::integer) return std::to_string(key.integer);
    if (key.kind != Kind::text) fail(where, "a dict's key is neither text nor an integer");
    if (!is_plain(key.text)) {
      fail(where, "a dict's key is longer than 255 characters or not plain text");
    }
    return key.text;
  }

  // A call's argument, which must be of this kind.
  const PickleValue& argument(const PickleValue& call, size_t i, Kind kind,
                              const std::string& where) const {
    if (i >= call.items.size() || at(call.items[i]).kind != kind) {
      fail(where, "argument " + std::to_string(i) + " of " + call.text +
                      " is missing or of another type; the file is damaged");
    }
    return at(call.items[i]);
  }

  std::vector<int64_t> integers(const PickleValue& tuple, const char* what,
                                const std::string& where) const {
    std::vector<int64_t> numbers;
    for (const uint32_t item : tuple.items) {
      const PickleValue& number = at(item);
      if (number.kind != Kind::integer || number.integer < 0) {
        fail(where, std::string(what) + ": an item is no integer of 0 or more");
      }
      numbers.push_back(number.integer);
    }
    return numbers;
  }

  void read_tensor(const PickleValue& call, const std::string& where) {
    const PickleValue* tensor = &call;
    if (tensor->text == "torch._utils._rebuild_parameter") {
      tensor = &argument(*tensor, 0, Kind::call, where);
    }
    if (tensor->text != "torch._utils._rebuild_tensor_v2") {
      fail(where, tensor->text + ": makes no tensor");
    }
    const PickleValue& storage = argument(*tensor, 0, Kind::external, where);
    const int64_t offset = argument(*tensor, 1, Kind::integer, where).integer;
    const auto shape = integers(argument(*tensor, 2, Kind::tuple, where), "size", where);
    auto strides = integers(argument(*tensor, 3, Kind::tuple, where), "stride", where);
    if (shape.size() > kMaxDims || strides.size() != shape.size()) {
      fail(where, std::to_string(shape.size()) + " dimensions and " +
                      std::to_string(strides.size()) + " strides: want as many, at most " +
                      std::to_string(kMaxDims));
    }
    const auto& [dtype, bytes] = storage_of(storage, where);
    check_extent(offset, shape, strides, static_cast<int64_t>(bytes.size() / dtype->size), where);
    tensors_.push_back({where, shape, dtype->name, {}});
    copy_elements(*dtype, bytes, offset, strides, tensors_.back());
  }

  // The last element must lie within the storage; every sum and product is bounded on the way.
  // Strides that are not used become 0, they may be anything.
  void check_extent(int64_t offset, const std::vector<int64_t>& shape,
                    std::vector<int64_t>& strides, int64_t n, const std::string& where) {
    int64_t count = 1;
    for (const int64_t size : shape) {
      if (size > kMaxElements || (count *= size) > kMaxElements) {
        fail(where, "more than " + std::to_string(kMaxElements) + " elements");
      }
    }
    elements_ += count;
    if (elements_ > kMaxElements) {
      fail(where, "with those before it, more than " + std::to_string(kMaxElements) + " elements");
    }
    if (count == 0) return;
    const auto outside = [&] {
      fail(where, "reaches beyond the " + std::to_string(n) +
                      " elements that are stored; the file is damaged");
    };
    if (offset < 0 || offset >= n) outside();
    int64_t last = offset;
    for (size_t d = 0; d < shape.size(); ++d) {
      if (shape[d] == 1) strides[d] = 0;
      if (strides[d] >= n || (last += (shape[d] - 1) * strides[d]) >= n) outside();
    }
  }

  static void copy_elements(const Dtype& dtype, const std::string& bytes, int64_t offset,
                            const std::vector<int64_t>& strides, PtTensor& out) {
    int64_t count = 1;
    for (const int64_t size : out.shape) count *= size;
    out.values.reserve(static_cast<size_t>(count));
    std::vector<int64_t> index(out.shape.size());
    int64_t at = offset;
    for (int64_t i = 0; i < count; ++i) {
      out.values.push_back(to_float(dtype, bytes, at));
      for (size_t d = index.size(); d-- > 0;) {  // count up, last dimension fastest
        at += strides[d];
        if (++index[d] < out.shape[d]) break;
        at -= out.shape[d] * strides[d];
        index[d] = 0;
      }
    }
  }

  struct Storage {
    const Dtype* dtype;
    const std::string& bytes;
  };

  // ("storage", its class, key, device, number of elements)
  Storage storage_of(const PickleValue& external, const std::string& where) {
    const PickleValue& id = at(external.items[0]);
    if (id.kind != Kind::tuple || id.items.size() != 5 || at(id.items[0]).text != "storage" ||
        at(id.items[1]).kind != Kind::global || at(id.items[2]).kind != Kind::text ||
        at(id.items[4]).kind != Kind::integer) {
      fail(where, "its storage is not as torch.save names one; the file is damaged");
    }
    const auto dtype = std::find_if(std::begin(kDtypes), std::end(kDtypes), [&](const Dtype& d) {
      return d.storage == at(id.items[1]).text;
    });
    const int64_t n = at(id.items[4]).integer;
    if (dtype == std::end(kDtypes) || n < 0 || n > kMaxElements) {
      fail(where, "storage of " + std::to_string(n) + " elements of " + at(id.items[1]).text +
                      ": want at most " + std::to_string(kMaxElements) + " of a Storage");
    }
    const std::string& key = at(id.items[2]).text;
    if (!is_plain(key))
      fail(where, "its storage's key is longer than 255 characters or not plain text");
    const uint64_t size = static_cast<uint64_t>(n) * dtype->size;
    auto [known, is_new] = storages_.try_emplace(key);
    if (is_new) known->second = read_(key, size);
    if (known->second.size() != size) {
      fail(where, "storage of " + std::to_string(known->second.size()) + " bytes: want " +
                      std::to_string(size) + "; the file is damaged");
    }
    return {dtype, known->second};
  }

  const std::string& name_;
  Pickle pickle_;
  const ReadStorage& read_;
  std::map<std::string, std::string> storages_;  // by key
  std::vector<PtTensor> tensors_;
  int64_t visits_ = 0;
  int64_t elements_ = 0;
};

// Files of PyTorch before 1.6 are bare pickles.
void check_not_legacy(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw Error(path + ": cannot be read: " + std::strerror(errno));
  char start[2] = {};
  in.read(start, 2);
  if (in && start[0] == '\x80' && start[1] == '\x02') {
    throw Error(
        path +
        ": written by torch.save before PyTorch 1.6 (a pickle, not a zip file); load it and "
        "save it again with a later one");
  }
}

std::string pickle_member(const ZipFile& zip) {
  std::string found;
  for (const std::string& name : zip.names()) {
    if (!name.ends_with("/data.pkl")) continue;
    if (!found.empty()) throw Error(zip.path() + ": has more than one member */data.pkl");
    found = name;
  }
  if (!is_plain(found))
    throw Error(zip.path() + ": its data.pkl is in a folder with a strange name");
  if (found.empty()) {
    throw Error(zip.path() + ": has no member */data.pkl: not a file of torch.save's");
  }
  return found;
}

}  // namespace

std::vector<PtTensor> pt_tensors(std::string_view pickle, const ReadStorage& read,
                                 const std::string& name) {
  return TensorReader(pickle, read, name).read();
}

std::vector<PtTensor> read_pt(const std::string& path) {
  check_not_legacy(path);
  const ZipFile zip(path);
  const std::string pickle = pickle_member(zip);
  const std::string folder = pickle.substr(0, pickle.size() - std::strlen("data.pkl"));
  if (zip.has(folder + "byteorder") && zip.read(folder + "byteorder", 16) != "little") {
    throw Error(path + ": member '" + folder +
                "byteorder': not little: save it again on a little-endian machine");
  }
  uint64_t left = zip.file_size();  // members that overlap could hold more than the file
  const auto read = [&](const std::string& key, uint64_t size) {
    std::string bytes = zip.read(folder + "data/" + key, std::min(size, left));
    left -= bytes.size();
    return bytes;
  };
  return pt_tensors(zip.read(pickle, kMaxPickle), read, path + ": " + pickle);
}

}  // namespace hata::weights
