// Two TensorFlow ops, through TensorFlow's C API, which is the same in all its releases: Gpt2Pack and Gpt2Forward.

#include <string>

#include "forward.h"
#include "memory.h"
#include "tensorflow/c/kernels.h"
#include "tensorflow/c/ops.h"

namespace gpt2 {
namespace {

Team& team = *new Team;  // never destroyed: at exit its threads still wait

// One call of a kernel: its inputs, and the first thing that is wrong with it.
class Call {
 public:
  explicit Call(TF_OpKernelContext* context) : context_(context), status_(TF_NewStatus()) {}
  ~Call() {
    for (TF_Tensor* tensor : tensors_) TF_DeleteTensor(tensor);
    if (TF_GetCode(status_) != TF_OK) TF_OpKernelContext_Failure(context_, status_);
    TF_DeleteStatus(status_);
  }

  TF_Tensor* input(int i) {
    TF_Tensor* tensor = nullptr;
    TF_GetInput(context_, i, &tensor, status_);
    tensors_.push_back(tensor);
    return tensor;
  }
  template <class T>
  T* data(int i) {
    return static_cast<T*>(TF_TensorData(input(i)));
  }
  void* output(TF_DataType type, std::vector<int64_t> shape, bool weights = false) {
    size_t bytes = TF_DataTypeSize(type);
    for (int64_t dim : shape) bytes *= dim;
    if (weights) {
      Chunk* chunk;
      void* memory = Chunk::allocate(bytes, &chunk);
      if (!memory) {
        TF_SetStatus(status_, TF_RESOURCE_EXHAUSTED, "no memory for the weights");
        return nullptr;
      }
      tensors_.push_back(TF_NewTensor(type, shape.data(), shape.size(), memory, bytes, &Chunk::release, chunk));
      TF_SetOutput(context_, 0, tensors_.back(), status_);
    } else {
      tensors_.push_back(TF_AllocateOutput(context_, 0, type, shape.data(), shape.size(), bytes, status_));
    }
    return TF_GetCode(status_) == TF_OK ? TF_TensorData(tensors_.back()) : nullptr;
  }
  bool check(bool holds, const std::string& otherwise) {
    if (!holds && TF_GetCode(status_) == TF_OK) TF_SetStatus(status_, TF_INVALID_ARGUMENT, otherwise.c_str());
    return holds;
  }

 private:
  TF_OpKernelContext* context_;
  TF_Status* status_;
  std::vector<TF_Tensor*> tensors_;
};

int attribute(TF_OpKernelConstruction* construction, const char* name) {
  int32_t value = 0;
  TF_Status* status = TF_NewStatus();
  TF_OpKernelConstruction_GetAttrInt32(construction, name, &value, status);
  if (TF_GetCode(status) != TF_OK) TF_OpKernelConstruction_Failure(construction, status);
  TF_DeleteStatus(status);
  return value;
}

struct ForwardAttributes {
  int n_head, n_layer, threads;

  static void* make(TF_OpKernelConstruction* c) {
    return new ForwardAttributes{attribute(c, "n_head"), attribute(c, "n_layer"), attribute(c, "threads")};
  }
  static void free(void* made) { delete static_cast<ForwardAttributes*>(made); }
};

template <class W, class C>
void forward(const ForwardAttributes& attributes, Call& call) {
  int next = 0;
  Forward<W, C> f;
  TF_Tensor* pieces = call.input(next++);
  const int* piece = static_cast<int*>(TF_TensorData(pieces));
  const long batch = TF_Dim(pieces, 0), width = TF_Dim(pieces, 1);
  if (!call.check(width > Sequence::TOKENS, "pieces must hold tokens")) return;
  for (long b = 0; b < batch; b++, piece += width)
    f.sequences.push_back({piece[0], piece[1], piece[2], piece + Sequence::TOKENS});
  f.wte = call.data<W>(next++);
  TF_Tensor* scale = call.input(next++);
  f.wte_scale = static_cast<float*>(TF_TensorData(scale));
  TF_Tensor* wpe = call.input(next++);
  f.wpe = static_cast<float*>(TF_TensorData(wpe));
  f.ln_f = call.data<float>(next++);
  f.n_vocab = TF_Dim(scale, 0), f.n_embd = TF_Dim(wpe, 1), f.n_head = attributes.n_head;
  f.layers.resize(attributes.n_layer);
  for (auto& layer : f.layers) {
    layer.c_attn = call.data<W>(next++);
    layer.attn_proj = call.data<W>(next++);
    layer.c_fc = call.data<W>(next++);
    layer.mlp_proj = call.data<W>(next++);
  }
  for (auto& layer : f.layers) layer.vectors = call.data<float>(next++);
  TF_Tensor* keys = call.input(next);  // [rows, n_head, capacity, head_size]
  for (auto& layer : f.layers) layer.keys = call.data<C>(next++);
  for (auto& layer : f.layers) layer.values = call.data<C>(next++);
  f.capacity = TF_Dim(keys, 2);
  for (const Sequence& s : f.sequences) {
    const long end = long(s.start) + s.count, room = std::min<long>(f.capacity, TF_Dim(wpe, 0));
    if (!call.check(s.count > 0 && s.count <= width - Sequence::TOKENS, "counts must be from 1 to the tokens' width"))
      return;
    if (!call.check(s.start >= 0 && end <= room, "positions out of range")) return;
    if (!call.check(s.row >= 0 && s.row < TF_Dim(keys, 0), "rows out of range")) return;
    const bool known = std::all_of(s.tokens, s.tokens + s.count, [&](int id) { return id >= 0 && id < f.n_vocab; });
    if (!call.check(known, "ids outside the vocabulary")) return;
  }
  f.logits = static_cast<float*>(call.output(TF_FLOAT, {batch, f.n_vocab}));
  if (!f.logits) return;
  f.team = &team;
  f.prepare();
  team.run(attributes.threads, [&](int) { f.run(); });
}

template <class W, class C>
void compute_forward(void* attributes, TF_OpKernelContext* context) {
  Call call(context);
  forward<W, C>(*static_cast<ForwardAttributes*>(attributes), call);
}

struct PackAttributes {
  int transposed, threads;

  static void* make(TF_OpKernelConstruction* c) {
    return new PackAttributes{attribute(c, "transposed"), attribute(c, "threads")};
  }
  static void free(void* made) { delete static_cast<PackAttributes*>(made); }
};

template <class T>
T packed(T x) { return x; }
Biased packed(int8_t x) { return {uint8_t(x + 128)}; }

// Parts [depth, n], or [n, depth] if transposed, side by side -> a packed matrix (kernels.h). All parts but the last are
// equally wide, in whole panels.
template <class T>
void compute_pack(void* made, TF_OpKernelContext* context) {
  const auto& attributes = *static_cast<PackAttributes*>(made);
  Call call(context);
  std::vector<TF_Tensor*> parts;
  for (int i = 0; i < TF_NumInputs(context); i++) parts.push_back(call.input(i));
  const int columns_at = attributes.transposed ? 0 : 1;
  const long depth = TF_Dim(parts[0], 1 - columns_at), width = TF_Dim(parts[0], columns_at);
  const long n = width * (parts.size() - 1) + TF_Dim(parts.back(), columns_at), panels = (n + WIDTH - 1) / WIDTH;
  if (!call.check(parts.size() == 1 || width % WIDTH == 0, "parts must be whole panels")) return;
  using W = decltype(packed(T()));
  const std::vector<int64_t> shape = {panels, groups<W>(depth), WIDTH, GROUP<W>};
  W* to = static_cast<W*>(call.output(TF_TensorType(parts[0]), shape, true));
  if (!to) return;
  team.run(attributes.threads, [&](int) {
    team.phase(panels, [&](long panel) {
      W* out = to + place<W>(0, panel * WIDTH, depth);
      TF_Tensor* part = parts[panel * WIDTH / width];
      const long first = panel * WIDTH % width, columns = std::min<long>(WIDTH, TF_Dim(part, columns_at) - first);
      const long step = attributes.transposed ? 1 : TF_Dim(part, 1), across = attributes.transposed ? depth : 1;
      const T* in = static_cast<T*>(TF_TensorData(part)) + first * across;
      if (columns < WIDTH || depth % GROUP<W>) std::memset(out, 0, groups<W>(depth) * WIDTH * GROUP<W> * sizeof(W));
      for (long block = 0; block < depth; block += LANES)  // both sides stay in the first-level cache
        for (long i = 0; i < columns; i++)
          for (long k = block; k < std::min(depth, block + LANES); k++)
            out[place<W>(k, i, depth)] = packed(in[k * step + i * across]);
    }, {});
  });
}

void define(const char* name, std::vector<const char*> attributes, std::vector<const char*> inputs,
            const char* output) {
  TF_OpDefinitionBuilder* op = TF_NewOpDefinitionBuilder(name);
  for (auto attribute : attributes) TF_OpDefinitionBuilderAddAttr(op, attribute);
  for (auto input : inputs) TF_OpDefinitionBuilderAddInput(op, input);
  TF_OpDefinitionBuilderAddOutput(op, output);
  TF_OpDefinitionBuilderSetIsStateful(op, true);
  TF_OpDefinitionBuilderSetShapeInferenceFunction(op, &TF_ShapeInferenceContextSetUnknownShape);
  TF_Status* status = TF_NewStatus();
  TF_RegisterOpDefinition(op, status);
  TF_DeleteStatus(status);
}

template <class Attributes>
void implement(const char* name, TF_DataType w, TF_DataType c, void (*compute)(void*, TF_OpKernelContext*)) {
  TF_Status* status = TF_NewStatus();
  TF_KernelBuilder* kernel = TF_NewKernelBuilder(name, "CPU", &Attributes::make, compute, &Attributes::free);
  TF_KernelBuilder_TypeConstraint(kernel, "W", w, status);
  if (c) TF_KernelBuilder_TypeConstraint(kernel, "C", c, status);
  TF_RegisterKernelBuilder(name, kernel, status);
  TF_DeleteStatus(status);
}

// Runs when TensorFlow opens the library.
__attribute__((constructor)) void register_ops() {
  define("Gpt2Pack", {"W: {float, bfloat16, int8}", "n_parts: int", "transposed: int", "threads: int"},
         {"parts: n_parts * W"}, "packed: W");
  define("Gpt2Forward",
         {"W: {float, bfloat16, int8}", "C: {float, bfloat16}", "n_head: int", "n_layer: int", "n_kernels: int",
          "threads: int"},
         {"pieces: int32", "wte: W", "wte_scale: float", "wpe: float",
          "ln_f: float", "kernels: n_kernels * W", "vectors: n_layer * float", "keys: n_layer * C",
          "values: n_layer * C"},
         "logits: float");
  implement<PackAttributes>("Gpt2Pack", TF_FLOAT, {}, &compute_pack<float>);
  implement<PackAttributes>("Gpt2Pack", TF_BFLOAT16, {}, &compute_pack<bfloat16>);
  implement<PackAttributes>("Gpt2Pack", TF_INT8, {}, &compute_pack<int8_t>);
  implement<ForwardAttributes>("Gpt2Forward", TF_FLOAT, TF_FLOAT, &compute_forward<float, float>);
  implement<ForwardAttributes>("Gpt2Forward", TF_BFLOAT16, TF_BFLOAT16, &compute_forward<bfloat16, bfloat16>);
  implement<ForwardAttributes>("Gpt2Forward", TF_INT8, TF_BFLOAT16, &compute_forward<Biased, bfloat16>);
}

}  // namespace
}  // namespace gpt2
