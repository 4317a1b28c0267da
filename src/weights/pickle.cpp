#include "weights/pickle.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "hata/types.h"

namespace hata::weights {
namespace {

using Kind = PickleValue::Kind;

constexpr size_t kMaxBytes = 1 << 22;  // a tensor takes about 200
constexpr size_t kMaxValues = 1 << 20;
constexpr size_t kMaxName = 255;      // of a global
constexpr size_t kMaxArguments = 16;  // _rebuild_tensor_v2 takes 7

constexpr const char* kOrderedDict = "collections.OrderedDict";
constexpr std::string_view kGlobals[] = {kOrderedDict,
                                         "torch._utils._rebuild_tensor_v2",
                                         "torch._utils._rebuild_parameter",
                                         "torch.FloatStorage",
                                         "torch.HalfStorage",
                                         "torch.BFloat16Storage",
                                         "torch.DoubleStorage"};

// What a program may print: names come from the file.
std::string printable(std::string_view text) {
  std::string out(text.substr(0, 64));
  std::replace_if(
      out.begin(), out.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return out;
}

// The machine that a pickle is a program for: a stack, marks on it, and a memo.
class Parser {
 public:
  Parser(std::string_view bytes, const std::string& name) : bytes_(bytes), name_(name) {}

  Pickle parse() {
    if (bytes_.size() > kMaxBytes) {
      fail(std::to_string(bytes_.size()) + " bytes: want at most " + std::to_string(kMaxBytes));
    }
    if (byte() != 0x80) fail("not a pickle of protocol 2, which torch.save writes");
    const int protocol = byte();
    if (protocol != 2) {
      fail("protocol " + std::to_string(protocol) +
           ": torch.save writes 2; save it again without " + "pickle_protocol");
    }
    for (;;) {
      op_at_ = at_;
      const auto op = byte();
      if (op == '.') break;
      step(op);
    }
    out_.root = pop();
    if (!stack_.empty() || !marks_.empty()) fail("the end, with values left on the stack");
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(name_ + ": byte " + std::to_string(op_at_) + ": " + what);
  }

  // --- bytes

  std::string_view take(size_t n) {
    if (n > bytes_.size() - at_) fail("the pickle ends within a value; it is cut: fetch it again");
    at_ += n;
    return bytes_.substr(at_ - n, n);
  }

  uint8_t byte() { return static_cast<uint8_t>(take(1)[0]); }

  template <class T>
  T fixed() {
    static_assert(std::endian::native == std::endian::little, "so are these fields");
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }

  std::string_view line() {
    const size_t end = bytes_.substr(at_).substr(0, kMaxName + 1).find('\n');
    if (end == std::string_view::npos) fail("a name that does not end");
    return take(end + 1).substr(0, end);
  }

  double big_endian_double() {
    const std::string_view raw = take(8);
    uint64_t bits = 0;
    for (const char c : raw) bits = bits << 8 | static_cast<uint8_t>(c);
    return std::bit_cast<double>(bits);
  }

  int64_t long_integer() {
    const std::string_view raw = take(byte());
    if (raw.size() > 8) fail("an integer of more than 8 bytes");
    uint64_t bits = !raw.empty() && (raw.back() & 0x80) != 0 ? ~uint64_t{0} : 0;
    for (size_t i = raw.size(); i-- > 0;) bits = bits << 8 | static_cast<uint8_t>(raw[i]);
    return static_cast<int64_t>(bits);
  }

  // --- the stack

  void push(PickleValue value) {
    if (out_.values.size() == kMaxValues) {
      fail("more than " + std::to_string(kMaxValues) + " values");
    }
    stack_.push_back(static_cast<uint32_t>(out_.values.size()));
    out_.values.push_back(std::move(value));
  }

  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }

  uint32_t top() const {
    if (stack_.size() <= floor()) fail("takes from an empty stack");
    return stack_.back();
  }

  uint32_t pop() {
    const uint32_t value = top();
    stack_.pop_back();
    return value;
  }

  std::vector<uint32_t> pop_last(size_t n) {
    if (stack_.size() - floor() < n) fail("takes from an empty stack");
    std::vector<uint32_t> items(stack_.end() - static_cast<std::ptrdiff_t>(n), stack_.end());
    stack_.resize(stack_.size() - n);
    return items;
  }

  std::vector<uint32_t> pop_to_mark() {
    if (marks_.empty()) fail("takes what is above a mark, but there is none");
    std::vector<uint32_t> items = pop_last(stack_.size() - marks_.back());
    marks_.pop_back();
    return items;
  }

  // --- the memo: numbered in order, so it can grow by one at a time only

  void put(size_t index) {
    if (index > memo_.size()) fail("memo " + std::to_string(index) + ": not the next one");
    if (index == memo_.size()) memo_.push_back(0);
    memo_[index] = top();
  }

  void get(size_t index) {
    if (index >= memo_.size()) fail("memo " + std::to_string(index) + ": nothing is there");
    if (stack_.size() == kMaxValues) fail("more than " + std::to_string(kMaxValues) + " values");
    stack_.push_back(memo_[index]);
  }

  // --- what they do

  void global() {
    std::string name(line());
    name += '.';
    name += line();
    if (std::find(std::begin(kGlobals), std::end(kGlobals), name) == std::end(kGlobals)) {
      fail("global '" + printable(name) +
           "' is refused (nothing was run): hash weights are tensors of f16, bf16, f32 or f64, or "
           "dicts and lists of them; save those alone");
    }
    push({.kind = Kind::global, .text = name});
  }

  void call() {
    const uint32_t last = pop();
    const PickleValue& callee = out_.values[pop()];
    const PickleValue& arguments = out_.values[last];
    if (callee.kind != Kind::global || arguments.kind != Kind::tuple) {
      fail("a call of what is no function is refused");
    }
    if (arguments.items.size() > kMaxArguments) {
      fail(std::to_string(arguments.items.size()) + " arguments: want at most " +
           std::to_string(kMaxArguments));
    }
    if (callee.text == kOrderedDict) {
      if (!arguments.items.empty()) fail(std::string(kOrderedDict) + " with arguments is refused");
      push({.kind = Kind::dict});
    } else {
      PickleValue call{.kind = Kind::call, .text = callee.text, .items = arguments.items};
      push(std::move(call));
    }
  }

  void extend(Kind kind, const std::vector<uint32_t>& items) {
    PickleValue& value = out_.values[top()];
    if (value.kind != kind || (kind == Kind::dict && items.size() % 2 != 0)) {
      fail("items for what cannot take them");
    }
    value.items.insert(value.items.end(), items.begin(), items.end());
  }

  // Attributes of an OrderedDict (a module's state_dict has some) say nothing of tensors.
  void drop_attributes() {
    pop();
    if (out_.values[top()].kind != Kind::dict) fail("attributes of what is no dict are refused");
  }

  void step(uint8_t op) {
    switch (op) {
      case '(':
        return marks_.push_back(stack_.size());
      case 'N':
        return push({});
      case 0x88:
        return push({.kind = Kind::boolean, .integer = 1});
      case 0x89:
        return push({.kind = Kind::boolean});
      case 'J':
        return push({.kind = Kind::integer, .integer = fixed<int32_t>()});
      case 'K':
        return push({.kind = Kind::integer, .integer = byte()});
      case 'M':
        return push({.kind = Kind::integer, .integer = fixed<uint16_t>()});
      case 0x8a:
        return push({.kind = Kind::integer, .integer = long_integer()});
      case 'G':
        return push({.kind = Kind::number, .number = big_endian_double()});
      case 'X':
        return push({.kind = Kind::text, .text = std::string(take(fixed<uint32_t>()))});
      case ')':
        return push({.kind = Kind::tuple});
      case 0x85:
        return push({.kind = Kind::tuple, .items = pop_last(1)});
      case 0x86:
        return push({.kind = Kind::tuple, .items = pop_last(2)});
      case 0x87:
        return push({.kind = Kind::tuple, .items = pop_last(3)});
      case 't':
        return push({.kind = Kind::tuple, .items = pop_to_mark()});
      case ']':
        return push({.kind = Kind::list});
      case '}':
        return push({.kind = Kind::dict});
      case 'a':
        return extend(Kind::list, pop_last(1));
      case 'e':
        return extend(Kind::list, pop_to_mark());
      case 's':
        return extend(Kind::dict, pop_last(2));
      case 'u':
        return extend(Kind::dict, pop_to_mark());
      case 'q':
        return put(byte());
      case 'r':
        return put(fixed<uint32_t>());
      case 'h':
        return get(byte());
      case 'j':
        return get(fixed<uint32_t>());
      case 'c':
        return global();
      case 'R':
        return call();
      case 'b':
        return drop_attributes();
      case 'Q':
        return push({.kind = Kind::external, .items = pop_last(1)});
      default:
        fail("opcode " + std::to_string(op) + " is refused: torch.save does not write it");
    }
  }

  std::string_view bytes_;
  const std::string& name_;
  size_t at_ = 0;
  size_t op_at_ = 0;
  Pickle out_;
  std::vector<uint32_t> stack_, memo_;
  std::vector<size_t> marks_;
};

}  // namespace

Pickle parse_pickle(std::string_view bytes, const std::string& name) {
  return Parser(bytes, name).parse();
}

}  // namespace hata::weights
