// Files of torch.save's: good ones give their elements, hostile ones an error that says what is
// wrong. make_pt.py writes them all.
#include "weights/pt_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <set>

#include "../temp_folder.h"
#include "hata/types.h"
#include "weights/zip_file.h"

namespace hata::weights {
namespace {

class PtFiles : public test::TempFolder {
 protected:
  PtFiles() {
    const std::string command = "python3 " HATA_MAKE_PT " " + folder_;
    made_ = std::system(command.c_str()) == 0;
  }
  void SetUp() override { ASSERT_TRUE(made_) << "python3 could not write the files"; }

  std::vector<PtTensor> read(const std::string& name) const { return read_pt(file(name)); }

  std::string error_of(const std::string& name) const {
    try {
      read(name);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }

  bool made_ = false;
};

// Elements first, first + 1, ... in eighths, which every type holds.
std::vector<float> eighths(int first, int n) {
  std::vector<float> x;
  for (int i = first; i < first + n; ++i) x.push_back(static_cast<float>(i) / 8);
  return x;
}

TEST_F(PtFiles, OfEveryType) {
  for (const char* type : {"f32", "f16", "bf16", "f64"}) {
    const auto tensors = read(type + std::string(".pt"));
    ASSERT_EQ(tensors.size(), 1u) << type;
    EXPECT_EQ(tensors[0].name, "");
    EXPECT_EQ(tensors[0].dtype, type);
    EXPECT_EQ(tensors[0].shape, (std::vector<int64_t>{2, 3, 4}));
    EXPECT_EQ(tensors[0].values, eighths(0, 24));
  }
  EXPECT_EQ(read("parameter.pt").at(0).values, eighths(0, 24));
  EXPECT_EQ(read("no-byteorder.pt").at(0).values, eighths(0, 24));
}

TEST_F(PtFiles, OfEveryLayout) {
  std::vector<float> transposed;  // stored as [2, 3, 4]
  for (int h = 0; h < 2; ++h) {
    for (int i = 0; i < 4; ++i) {
      for (int j = 0; j < 3; ++j) transposed.push_back(static_cast<float>(12 * h + 4 * j + i) / 8);
    }
  }
  const auto tensor = read("transposed.pt").at(0);
  EXPECT_EQ(tensor.shape, (std::vector<int64_t>{2, 4, 3}));
  EXPECT_EQ(tensor.values, transposed);
  EXPECT_EQ(read("view.pt").at(0).values,
            (std::vector<float>{5 / 8.f, 7 / 8.f, 17 / 8.f, 19 / 8.f}));
  EXPECT_EQ(read("expanded.pt").at(0).values,
            (std::vector<float>{22 / 8.f, 23 / 8.f, 22 / 8.f, 23 / 8.f, 22 / 8.f, 23 / 8.f}));
  EXPECT_EQ(read("scalar.pt").at(0).values, eighths(7, 1));
  EXPECT_EQ(read("one-row.pt").at(0).values, eighths(0, 3));
  EXPECT_TRUE(read("no-elements.pt").at(0).values.empty());
}

TEST_F(PtFiles, OfDictsAndLists) {
  const auto state = read("state.pt");
  ASSERT_EQ(state.size(), 2u);
  EXPECT_EQ(state[0].name, "layers.2.w");
  EXPECT_EQ(state[1].name, "layers.3.w");
  EXPECT_EQ(state[1].dtype, "bf16");
  EXPECT_EQ(state[0].values, state[1].values);
  const auto mixed = read("mixed.pt");
  ASSERT_EQ(mixed.size(), 2u);
  EXPECT_EQ(mixed[0].name, "w.1");  // w.0 is None
  EXPECT_EQ(mixed[1].name, "7.0");
  EXPECT_EQ(read("shared.pt").size(), 2u);
}

// Each case with a part of its error.
const std::pair<const char*, const char*> kHostile[] = {
    {"os-system", "'os.system' is refused (nothing was run)"},
    {"eval", "'builtins.eval' is refused"},
    {"getattr", "'torch.load' is refused"},
    {"long-storage", "'torch.LongStorage' is refused"},
    {"long-name", "a name that does not end"},
    {"inst", "opcode 105 is refused"},
    {"call-tensor", "a call of what is no function"},
    {"ordered-dict", "OrderedDict with arguments"},
    {"storage-call", "makes no tensor"},
    {"no-arguments", "argument 0 of torch._utils._rebuild_tensor_v2 is missing"},
    {"wrong-arguments", "argument 0 of"},
    {"parameter-of-none", "argument 0 of torch._utils._rebuild_parameter"},
    {"persistent-text", "its storage is not as torch.save names one"},
    {"persistent-short", "its storage is not as torch.save names one"},
    {"just-a-number", "holds no tensor"},
    {"build-none", "attributes of what is no dict"},
    {"huge-size", "more than 134217728 elements"},
    {"huge-product", "more than 134217728 elements"},
    {"huge-expand", "more than 134217728 elements"},
    {"many-expands", "more than 134217728 elements"},
    {"huge-storage", "storage of 1099511627776 elements"},
    {"negative-storage", "storage of -24 elements"},
    {"negative-size", "size: an item is no integer of 0 or more"},
    {"negative-stride", "stride: an item is no integer of 0 or more"},
    {"negative-offset", "beyond the 24 elements"},
    {"offset", "beyond the 24 elements"},
    {"huge-offset", "beyond the 24 elements"},
    {"past-the-end", "beyond the 24 elements"},
    {"stride", "beyond the 24 elements"},
    {"huge-stride", "beyond the 24 elements"},
    {"more-than-stored", "storage of 96 bytes: want 100"},
    {"less-than-stored", "96 bytes: want at most 92"},
    {"few-strides", "3 dimensions and 1 strides"},
    {"many-dimensions", "9 dimensions"},
    {"huge-integer", "an integer of more than 8 bytes"},
    {"memo", "memo 0: nothing is there"},
    {"memo-gap", "memo 4294967295: not the next one"},
    {"stack", "takes from an empty stack"},
    {"stack-below-mark", "takes from an empty stack"},
    {"no-mark", "there is none"},
    {"mark-left", "values left on the stack"},
    {"two-left", "values left on the stack"},
    {"empty", "takes from an empty stack"},
    {"append-to-none", "items for what cannot take them"},
    {"odd-dict", "items for what cannot take them"},
    {"unhashable", "key is neither text nor an integer"},
    {"long-key", "longer than 255"},
    {"strange-key", "not plain text"},
    {"opcode", "opcode 149 is refused"},
    {"protocol", "protocol 4"},
    {"not-a-pickle", "not a pickle of protocol 2"},
    {"cut-pickle", "the pickle ends within a value"},
    {"no-stop", "the pickle ends within a value"},
    {"huge-text", "the pickle ends within a value"},
    {"endless-name", "a name that does not end"},
    {"deep", "nested more than 16 deep"},
    {"deep-tensor", "nested more than 16 deep"},
    {"cycle", "nested more than 16 deep"},
    {"billion-laughs", "more than 65536 values"},
    {"many-values", "more than 1048576 values"},
    {"many-marks", "takes from an empty stack"},
    {"big-pickle", "want at most 4194304"},
    {"missing-data", "member 'missing-data/data/0': is missing"},
    {"other-key", "member 'other-key/data/../0': is missing"},
    {"compressed", "is compressed"},
    {"bomb", "is compressed"},
    {"big-endian", "byteorder': not little"},
    {"no-pickle", "no member */data.pkl"},
    {"two-pickles", "more than one member"},
    {"strange-folder", "a strange name"},
    {"strange-storage", "its storage's key"},
    {"many-arguments", "17 arguments"},
    {"cut-zip", "cannot be read as a zip file"},
    {"half-zip", "cannot be read as a zip file"},
    {"flipped", "cannot be read: CRC error"},
    {"empty-file", "cannot be read as a zip file"},
    {"text", "cannot be read as a zip file"},
    {"legacy", "before PyTorch 1.6"},
    {"no-such-file", "No such file"},
};

TEST_F(PtFiles, HostileOnesAreRefused) {
  for (const auto& [name, why] : kHostile) {
    const std::string error = error_of(name + std::string(".pt"));
    EXPECT_NE(error.find(why), std::string::npos) << name << ": " << error;
    EXPECT_EQ(error.find(file(name)), 0u) << name << ": " << error;
    EXPECT_LT(error.size(), 1000u) << name;
  }
}

// Whatever the bytes are: tensors, or an Error. Sanitizers see the rest.
void read_or_refuse(const std::string& pickle, int64_t& read, int64_t& refused) {
  const auto storage = [](const std::string&, uint64_t size) {
    if (size > 4096) throw Error("no such storage");
    return std::string(size, '\1');
  };
  try {
    for (const PtTensor& tensor : pt_tensors(pickle, storage, "pickle")) {
      int64_t n = 1;
      for (const int64_t size : tensor.shape) n *= size;
      EXPECT_EQ(std::ssize(tensor.values), n);
    }
    ++read;
  } catch (const Error&) {
    ++refused;
  }
}

TEST_F(PtFiles, EveryByteOfAPickleMayBeAnyOther) {
  int64_t read = 0, refused = 0;
  for (const char* name : {"bf16", "state"}) {
    const std::string good =
        ZipFile(file(name + std::string(".pt"))).read(name + std::string("/data.pkl"), 4096);
    for (size_t i = 0; i < good.size(); ++i) {
      std::string bad = good;
      for (int byte = 0; byte < 256; ++byte) {
        bad[i] = static_cast<char>(byte);
        read_or_refuse(bad, read, refused);
      }
      read_or_refuse(good.substr(0, i), read, refused);
      read_or_refuse(good.substr(0, i) + good.substr(i + 1), read, refused);
    }
  }
  EXPECT_GT(read, 1000);
  EXPECT_GT(refused, 10000);
}

TEST_F(PtFiles, EveryByteOfAFileMayBeAnother) {
  const std::string good = bytes("state.pt");
  std::set<std::string> errors;
  const auto count = [&](const std::string& content) {
    put("bad.pt", content);
    errors.insert(error_of("bad.pt"));
  };
  for (size_t i = 0; i < good.size(); ++i) {
    for (const int flip : {0x01, 0xff}) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ flip);
      count(bad);
    }
    count(good.substr(0, i));
  }
  EXPECT_GT(errors.size(), 10u);
}

}  // namespace
}  // namespace hata::weights
