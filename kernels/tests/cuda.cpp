// What of CUDA's driver and of cuBLASLt the engine calls, on the processor: kernels run on the emulator, products as plain
// sums. Work is done when its stream is waited for and no sooner, calls need a context as CUDA's do, and what is not given
// back is counted. Compiled once for each library that it stands for.
//
// Source: CUDA's driver API and cuBLASLt's reference, for the meaning of each call and the values of its constants.

#include "emulator.cpp"

#include <atomic>
#include <cstring>
#include <functional>
#include <mutex>
#include <tuple>

typedef std::vector<std::function<void()>> Work;

struct Stream {
    Work pending;
    bool capturing = false;
    Work captured;
};

struct LaunchAttribute {
    int id;
    char padding[4];
    union {
        int value;
        char room[64];
    };
};

struct LaunchConfig {
    unsigned grid, grid_y, grid_z;
    unsigned block, block_y, block_z;
    unsigned shared;
    Stream* stream;
    const LaunchAttribute* attributes;
    unsigned attribute_count;
};

// Both libraries' results.
enum Status {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    BLAS_INVALID_VALUE = 7,
    BLAS_NOT_SUPPORTED = 15,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    NOT_FOUND = 500,
    CAPTURE_UNSUPPORTED = 900,
};

static int context;
static thread_local void* current = nullptr;
// Streams that capture, of which a thread must not wait or allocate meanwhile.
static thread_local int capturing = 0;
// Blocks of a launch have the emulator to themselves.
static std::mutex running;
static std::atomic<int> held = 0;

static void put(Stream* stream, std::function<void()> work) {
    (stream->capturing ? stream->captured : stream->pending).push_back(std::move(work));
}

static void run(Work& work) {
    const std::lock_guard<std::mutex> alone(running);
    for (const std::function<void()>& step : work) {
        step();
    }
    work.clear();
}

template <typename... A, std::size_t... I>
static std::tuple<A...> values_of(void** arguments, std::index_sequence<I...>) {
    return std::tuple<A...>(*static_cast<A*>(arguments[I])...);
}

/// A launch with copies of its arguments.
template <typename... A>
static std::function<void()> launch_of(void (*kernel)(A...), unsigned grid, unsigned block, void** arguments) {
    auto values = values_of<A...>(arguments, std::index_sequence_for<A...>());
    return [=]() mutable {
        std::apply([&](A&... values) {
            void* pointers[] = {&values...};
            launch(kernel, grid, block, pointers);
        }, values);
    };
}

#define NEEDS_CONTEXT                   \
    if (current != &context) {          \
        return INVALID_CONTEXT;         \
    }
#define NEEDS_NO_CAPTURE                \
    NEEDS_CONTEXT                       \
    if (capturing != 0) {               \
        return CAPTURE_UNSUPPORTED;     \
    }

extern "C" {

/// What was made and not given back.
int emulated_objects() {
    return held;
}

Status cuInit(unsigned) {
    return SUCCESS;
}

Status cuGetErrorString(Status status, const char** text) {
    *text = status == INVALID_CONTEXT       ? "no context"
            : status == CAPTURE_UNSUPPORTED ? "not while capturing"
                                            : "refused";
    return SUCCESS;
}

Status cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return ordinal == 0 ? SUCCESS : INVALID_VALUE;
}

Status cuDeviceGetName(char* name, int length, int) {
    std::strncpy(name, "the emulator", static_cast<std::size_t>(length));
    return SUCCESS;
}

Status cuDeviceGetAttribute(int* value, int attribute, int) {
    // The compute capability, 9.0, and pools of memory.
    *value = attribute == 75 ? 9 : 0;
    return attribute == 75 || attribute == 76 || attribute == 115 ? SUCCESS : INVALID_VALUE;
}

Status cuDevicePrimaryCtxRetain(void** retained, int) {
    *retained = &context;
    ++held;
    return SUCCESS;
}

Status cuDevicePrimaryCtxRelease_v2(int) {
    --held;
    return SUCCESS;
}

Status cuCtxGetCurrent(void** found) {
    *found = current;
    return SUCCESS;
}

Status cuCtxSetCurrent(void* wanted) {
    current = wanted;
    return SUCCESS;
}

Status cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
    NEEDS_CONTEXT
    *free = *total = std::size_t{8} << 30;
    return SUCCESS;
}

Status cuMemAlloc_v2(unsigned long long* memory, std::size_t bytes) {
    NEEDS_NO_CAPTURE
    // As CUDA's, at a multiple of 256 bytes.
    void* made = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    std::memset(made, 0xff, bytes);
    *memory = reinterpret_cast<unsigned long long>(made);
    ++held;
    return SUCCESS;
}

Status cuMemFree_v2(unsigned long long memory) {
    NEEDS_NO_CAPTURE
    std::free(reinterpret_cast<void*>(memory));
    --held;
    return SUCCESS;
}

Status cuMemHostAlloc(void** memory, std::size_t bytes, unsigned) {
    NEEDS_NO_CAPTURE
    *memory = std::malloc(bytes);
    std::memset(*memory, 0xff, bytes);
    ++held;
    return SUCCESS;
}

Status cuMemHostGetDevicePointer_v2(unsigned long long* seen, void* memory, unsigned flags) {
    NEEDS_CONTEXT
    *seen = reinterpret_cast<unsigned long long>(memory);
    return flags == 0 ? SUCCESS : INVALID_VALUE;
}

Status cuMemFreeHost(void* memory) {
    NEEDS_NO_CAPTURE
    std::free(memory);
    --held;
    return SUCCESS;
}

Status cuMemcpyHtoD_v2(unsigned long long to, const void* from, std::size_t bytes) {
    NEEDS_NO_CAPTURE
    std::memcpy(reinterpret_cast<void*>(to), from, bytes);
    return SUCCESS;
}

Status cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, std::size_t bytes, Stream* stream) {
    NEEDS_CONTEXT
    put(stream, [=] { std::memcpy(reinterpret_cast<void*>(to), from, bytes); });
    return SUCCESS;
}

Status cuMemcpyDtoHAsync_v2(void* to, unsigned long long from, std::size_t bytes, Stream* stream) {
    NEEDS_CONTEXT
    put(stream, [=] { std::memcpy(to, reinterpret_cast<void*>(from), bytes); });
    return SUCCESS;
}

Status cuStreamCreate(Stream** stream, unsigned flags) {
    NEEDS_NO_CAPTURE
    *stream = new Stream;
    ++held;
    // One that does not wait for the default one.
    return flags == 1 ? SUCCESS : INVALID_VALUE;
}

Status cuStreamSynchronize(Stream* stream) {
    NEEDS_NO_CAPTURE
    if (stream != nullptr) {
        run(stream->pending);
    }
    return SUCCESS;
}

Status cuStreamDestroy_v2(Stream* stream) {
    NEEDS_CONTEXT
    delete stream;
    --held;
    return SUCCESS;
}

Status cuStreamBeginCapture_v2(Stream* stream, int mode) {
    NEEDS_NO_CAPTURE
    stream->capturing = true;
    ++capturing;
    // Only this thread has to mind it.
    return mode == 1 ? SUCCESS : INVALID_VALUE;
}

Status cuStreamEndCapture(Stream* stream, Work** graph) {
    NEEDS_CONTEXT
    stream->capturing = false;
    --capturing;
    *graph = new Work(std::move(stream->captured));
    stream->captured.clear();
    ++held;
    return SUCCESS;
}

Status cuGraphInstantiateWithFlags(Work** ready, Work* graph, unsigned long long) {
    NEEDS_CONTEXT
    *ready = new Work(*graph);
    ++held;
    return SUCCESS;
}

Status cuGraphDestroy(Work* graph) {
    NEEDS_CONTEXT
    delete graph;
    --held;
    return SUCCESS;
}

Status cuGraphExecDestroy(Work* graph) {
    return cuGraphDestroy(graph);
}

Status cuGraphUpload(Work*, Stream*) {
    NEEDS_CONTEXT
    return SUCCESS;
}

Status cuGraphLaunch(Work* graph, Stream* stream) {
    NEEDS_CONTEXT
    for (const std::function<void()>& step : *graph) {
        put(stream, step);
    }
    return SUCCESS;
}

Status cuModuleLoadData(int** module, const void* image) {
    NEEDS_NO_CAPTURE
    if (std::memcmp(image, "\x7f" "ELF", 4) != 0) {
        return INVALID_IMAGE;
    }
    *module = new int;
    ++held;
    return SUCCESS;
}

Status cuModuleUnload(int* module) {
    NEEDS_CONTEXT
    delete module;
    --held;
    return SUCCESS;
}

Status cuModuleGetFunction(const char** function, int*, const char* name) {
    NEEDS_CONTEXT
    static const char* const NAMES[] = {"gather_f32",  "gather_f16",  "cross_f32",   "cross_f16",
                                        "dense_1_f32", "dense_1_f16", "dense_8_f32", "dense_8_f16",
                                        "head_f32",    "head_f16",    "pairs",       "topk_items",
                                        "topk_keys"};
    for (const char* known : NAMES) {
        if (std::string_view(known) == name) {
            *function = known;
            return SUCCESS;
        }
    }
    return NOT_FOUND;
}

Status cuLaunchKernelEx(const LaunchConfig* config, const char* name, void** arguments, void** extra) {
    NEEDS_CONTEXT
    const auto& [grid, grid_y, grid_z, block, block_y, block_z, shared, stream, attributes, attribute_count] = *config;
    if (grid == 0 || grid_y * grid_z * block_y * block_z != 1 || shared != 0 || extra != nullptr) {
        return INVALID_VALUE;
    }
    // It may start before what is in the stream is done, which the kernels wait for.
    if (attribute_count != 1 || attributes[0].id != 6 || attributes[0].value != 1) {
        return INVALID_VALUE;
    }
#define LAUNCH(kernel)                                             \
    if (std::string_view(name) == #kernel) {                       \
        put(stream, launch_of(kernel, grid, block, arguments));    \
        return SUCCESS;                                            \
    }
    LAUNCH(gather_f32)
    LAUNCH(gather_f16)
    LAUNCH(cross_f32)
    LAUNCH(cross_f16)
    LAUNCH(dense_1_f32)
    LAUNCH(dense_1_f16)
    LAUNCH(dense_8_f32)
    LAUNCH(dense_8_f16)
    LAUNCH(head_f32)
    LAUNCH(head_f16)
    LAUNCH(pairs)
    LAUNCH(topk_items)
    LAUNCH(topk_keys)
#undef LAUNCH
    return NOT_FOUND;
}

} // extern "C"

/// A matrix, column by column.
struct Layout {
    int type;
    unsigned long long rows;
    unsigned long long columns;
    long long pitch;
};

struct Operation {
    int transposed = 0;
    int epilogue = 1;
    const void* bias = nullptr;
};

struct Preference {
    std::size_t workspace = 0;
    unsigned reductions = 7;
};

struct Heuristic {
    unsigned long long algorithm[8];
    std::size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

constexpr int FLOAT = 0;
constexpr int HALF = 2;
constexpr int BIAS = 4;
constexpr int RELU_BIAS = 6;

/// Whether the weights, which are transposed, the input and the output fit together, and what happens behind is known.
static bool fit(const Operation& operation, const Layout& weights, const Layout& input, const Layout& output) {
    return operation.transposed == 1 && (operation.epilogue == BIAS || operation.epilogue == RELU_BIAS) &&
           operation.bias != nullptr && weights.type == input.type && input.type == output.type &&
           (input.type == FLOAT || input.type == HALF) && weights.rows == input.rows &&
           weights.columns == output.rows && input.columns == output.columns;
}

template <typename T>
static void multiply(
    const Operation& operation, const T* weights, const Layout& by, const T* input, const Layout& of, T* output,
    const Layout& to
) {
    const T* bias = static_cast<const T*>(operation.bias);
    for (unsigned long long column = 0; column < to.columns; ++column) {
        for (unsigned long long row = 0; row < to.rows; ++row) {
            float sum = widen(bias[row]);
            for (unsigned long long place = 0; place < of.rows; ++place) {
                sum += widen(weights[row * by.pitch + place]) * widen(input[column * of.pitch + place]);
            }
            narrow(operation.epilogue == RELU_BIAS ? std::max(sum, 0.0f) : sum, output[column * to.pitch + row]);
        }
    }
}

template <typename T>
static int make(T** made, T value) {
    *made = new T(value);
    ++held;
    return SUCCESS;
}

template <typename T>
static int destroy(T* made) {
    delete made;
    --held;
    return SUCCESS;
}

extern "C" {

int cublasLtCreate(int** handle) {
    return make(handle, 0);
}

int cublasLtDestroy(int* handle) {
    return destroy(handle);
}

int cublasLtMatrixLayoutCreate(
    Layout** layout, int type, unsigned long long rows, unsigned long long columns, long long pitch
) {
    return make(layout, Layout{type, rows, columns, pitch});
}

int cublasLtMatrixLayoutDestroy(Layout* layout) {
    return destroy(layout);
}

int cublasLtMatmulDescCreate(Operation** operation, int compute, int scale) {
    // Sums of single precision.
    return compute == 68 && scale == FLOAT ? make(operation, Operation{}) : BLAS_INVALID_VALUE;
}

int cublasLtMatmulDescSetAttribute(Operation* operation, int attribute, const void* value, std::size_t bytes) {
    void* to = attribute == 3 ? static_cast<void*>(&operation->transposed)
               : attribute == 7 ? static_cast<void*>(&operation->epilogue)
               : attribute == 8 ? static_cast<void*>(&operation->bias)
                                : nullptr;
    if (to == nullptr || bytes != (attribute == 8 ? 8u : 4u)) {
        return BLAS_INVALID_VALUE;
    }
    std::memcpy(to, value, bytes);
    return SUCCESS;
}

int cublasLtMatmulDescDestroy(Operation* operation) {
    return destroy(operation);
}

int cublasLtMatmulPreferenceCreate(Preference** preference) {
    return make(preference, Preference{});
}

int cublasLtMatmulPreferenceSetAttribute(Preference* preference, int attribute, const void* value, std::size_t bytes) {
    void* to = attribute == 1 ? static_cast<void*>(&preference->workspace)
               : attribute == 3 ? static_cast<void*>(&preference->reductions)
                                : nullptr;
    if (to == nullptr || bytes != (attribute == 1 ? sizeof preference->workspace : sizeof preference->reductions)) {
        return BLAS_INVALID_VALUE;
    }
    std::memcpy(to, value, bytes);
    return SUCCESS;
}

int cublasLtMatmulPreferenceDestroy(Preference* preference) {
    return destroy(preference);
}

int cublasLtMatmulAlgoGetHeuristic(
    int*, const Operation* operation, const Layout* weights, const Layout* input, const Layout*, const Layout* output,
    const Preference* preference, int wanted, Heuristic* found, int* count
) {
    *count = 0;
    // Sums never go through numbers of the output's precision.
    if (!fit(*operation, *weights, *input, *output) || (preference->reductions & 4) != 0 || wanted < 3) {
        return SUCCESS;
    }
    // Products of one row have a way only where there is no workspace.
    if (input->columns == 1 && preference->workspace > 0) {
        return BLAS_NOT_SUPPORTED;
    }
    // The first one does not run, and the second one is said to be none.
    for (unsigned long long number = 0; number < 3; ++number) {
        found[number] = Heuristic{};
        found[number].algorithm[0] = number;
        found[number].workspace = preference->workspace;
        found[number].state = number == 1 ? BLAS_NOT_SUPPORTED : SUCCESS;
    }
    *count = 3;
    return SUCCESS;
}

int cublasLtMatmul(
    int*, const Operation* operation, const float* factor, const void* weights, const Layout* by, const void* input,
    const Layout* of, const float* factor_of_output, const void*, const Layout*, void* output, const Layout* to,
    const void* algorithm, void* workspace, std::size_t workspace_bytes, Stream* stream
) {
    const bool is_plain = *factor == 1.0f && *factor_of_output == 0.0f;
    if (!fit(*operation, *by, *of, *to) || !is_plain || algorithm == nullptr || workspace == nullptr ||
        workspace_bytes == 0) {
        return BLAS_INVALID_VALUE;
    }
    if (*static_cast<const unsigned long long*>(algorithm) != 2) {
        return BLAS_NOT_SUPPORTED;
    }
    // All of it is copied, as descriptors may go before the work is done.
    const auto work = [operation = *operation, weights, by = *by, input, of = *of, output, to = *to] {
        if (to.type == HALF) {
            multiply(
                operation, static_cast<const half*>(weights), by, static_cast<const half*>(input), of,
                static_cast<half*>(output), to
            );
        } else {
            multiply(
                operation, static_cast<const float*>(weights), by, static_cast<const float*>(input), of,
                static_cast<float*>(output), to
            );
        }
    };
    put(stream, work);
    return SUCCESS;
}

} // extern "C"
