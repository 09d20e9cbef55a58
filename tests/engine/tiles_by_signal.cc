// Emulates Intel's matrix unit (AMX) on processors without one. Once this library is loaded, the signal handler for
// illegal instructions executes the unit's instructions in software. Only those that pairs.h uses are emulated, as
// Intel's manual describes them in volume 2 (LDTILECFG to TILESTORED).

#include <signal.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

constexpr int TILES = 8, ROWS = 16, BYTES = 64;

struct Unit {
  bool is_configured;
  int rows[TILES], bytes[TILES];
  uint8_t tile[TILES][ROWS][BYTES];
};
thread_local Unit unit;

void expect(bool condition) {  // where a processor would end the program
  if (!condition) std::abort();
}

void configure(const uint8_t* from) {
  unit = {};
  unit.is_configured = true;
  expect(from[0] == 1);
  for (int i = 1; i < 16; i++) expect(from[i] == 0);
  for (int t = 0; t < 16; t++) {
    uint16_t bytes;
    std::memcpy(&bytes, from + 16 + 2 * t, sizeof bytes);
    const int rows = from[48 + t];
    expect(bytes <= BYTES && rows <= ROWS && (rows == 0) == (bytes == 0) && (t < TILES || rows == 0));
    if (t < TILES) unit.rows[t] = rows, unit.bytes[t] = bytes;
  }
}

void check(int t) { expect(unit.is_configured && t < TILES && unit.rows[t] > 0); }

void load(int t, const uint8_t* from, long stride) {
  check(t);
  std::memset(unit.tile[t], 0, sizeof unit.tile[t]);
  for (int row = 0; row < unit.rows[t]; row++) std::memcpy(unit.tile[t][row], from + row * stride, unit.bytes[t]);
}

void store(int t, uint8_t* to, long stride) {
  check(t);
  for (int row = 0; row < unit.rows[t]; row++) std::memcpy(to + row * stride, unit.tile[t][row], unit.bytes[t]);
}

// The unit treats denormal inputs and outputs as zeros.
float flush_denormal(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }

float bfloat16_at(const uint8_t* p) {
  uint16_t half;
  std::memcpy(&half, p, sizeof half);
  const uint32_t bits = uint32_t(half) << 16;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return flush_denormal(x);
}

void multiply(int to, int a, int b) {
  check(to), check(a), check(b);
  expect(to != a && to != b && a != b);
  expect(unit.rows[to] == unit.rows[a] && unit.bytes[to] == unit.bytes[b] && unit.bytes[a] == 4 * unit.rows[b]);
  for (int m = 0; m < unit.rows[to]; m++) {
    for (int n = 0; n < unit.bytes[to]; n += 4) {
      float sums[2] = {}, before;
      for (int k = 0; k < unit.rows[b]; k++) {
        for (int odd = 0; odd < 2; odd++) {
          const float x = bfloat16_at(&unit.tile[a][m][4 * k + 2 * odd]), y = bfloat16_at(&unit.tile[b][k][n + 2 * odd]);
          sums[odd] = flush_denormal(std::fma(x, y, sums[odd]));
        }
      }
      std::memcpy(&before, &unit.tile[to][m][n], sizeof before);
      const float after = flush_denormal(flush_denormal(before) + flush_denormal(sums[0] + sums[1]));
      std::memcpy(&unit.tile[to][m][n], &after, sizeof after);
    }
  }
}

// The operands after the VEX prefix of an instruction.
struct Operands {
  int reg, rm;  // two registers, or only reg if there is an address
  uint8_t* address;  // base and displacement; null without a memory operand
  long index;  // the scaled index register
  const uint8_t* end;  // of the instruction
};

long general_register(const ucontext_t* context, int number) {
  constexpr int ORDER[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                           REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return context->uc_mcontext.gregs[ORDER[number]];
}

Operands parse_operands(const ucontext_t* context, const uint8_t* p, bool x, bool b) {
  const int mod = *p >> 6, reg = *p >> 3 & 7, rm = *p & 7;
  p++;
  if (mod == 3) return {reg, rm, nullptr, 0, p};
  long address = 0, index = 0;
  bool has_base = true;
  int base = rm + 8 * b;
  if (rm == 4) {
    const int index_register = (*p >> 3 & 7) + 8 * x, scale = *p >> 6;
    base = (*p & 7) + 8 * b;
    has_base = mod != 0 || (*p & 7) != 5;
    if (index_register != 4) index = general_register(context, index_register) << scale;
    p++;
  } else {
    expect(mod != 0 || rm != 5);  // addresses relative to the instruction are not emulated
  }
  if (has_base) address = general_register(context, base);
  if (mod == 1) address += int8_t(*p), p++;
  if (mod == 2 || !has_base) {
    int32_t distance;
    std::memcpy(&distance, p, sizeof distance);
    address += distance, p += sizeof distance;
  }
  return {reg, rm, reinterpret_cast<uint8_t*>(address), index, p};
}

// Executes the instruction at p and returns the next one, or null if it does not belong to the unit.
const uint8_t* execute(const ucontext_t* context, const uint8_t* p) {
  enum { NONE, P66, F3, F2 };
  if (p[0] != 0xc4 || (p[1] & 0x1f) != 2 || (p[2] & 0x84) != 0) return nullptr;  // VEX.128.0F38.W0
  const int prefix = p[2] & 3, third = ~p[2] >> 3 & 15, opcode = p[3];
  const Operands to = parse_operands(context, p + 4, !(p[1] & 0x40), !(p[1] & 0x20));
  if (opcode == 0x49 && prefix == NONE && to.address)
    configure(to.address + to.index);
  else if (opcode == 0x49 && prefix == NONE)
    unit = {};
  else if (opcode == 0x4b && prefix == F2)
    load(to.reg, to.address, to.index);
  else if (opcode == 0x4b && prefix == F3)
    store(to.reg, to.address, to.index);
  else if (opcode == 0x5c && prefix == F3)
    multiply(to.reg, to.rm, third);
  else
    return nullptr;
  return to.end;
}

void on_signal(int, siginfo_t*, void* data) {
  auto* context = static_cast<ucontext_t*>(data);
  auto& next = context->uc_mcontext.gregs[REG_RIP];
  const uint8_t* after = execute(context, reinterpret_cast<const uint8_t*>(next));
  expect(after);
  next = reinterpret_cast<greg_t>(after);
}

const int at_load = [] {
  struct sigaction action = {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  return sigaction(SIGILL, &action, nullptr);
}();

}  // namespace
