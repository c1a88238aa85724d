// TensorRT's C++ interface behind the C functions of shim.h. It owns nothing, decides nothing and keeps no state but
// the text of a thread's last failure; what outlives what is the business of the crate in tensorrt/.
//
// Compiled once a flavour, with TRT_FLAVOUR `rtx` or `enterprise` and the headers of it. The flavours lay their
// vtables out differently, but their headers define inline functions of the same names, of which a linker keeps one:
// so each flavour's namespaces get names of their own. What the libraries export is extern "C" and does not notice.

#define TRT_JOIN_(left, right) left##_##right
#define TRT_JOIN(left, right) TRT_JOIN_(left, right)
#define nvinfer1 TRT_JOIN(nvinfer1, TRT_FLAVOUR)
#define nvonnxparser TRT_JOIN(nvonnxparser, TRT_FLAVOUR)

#include <NvInfer.h>
#include <NvOnnxParser.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>

#include "shim.h"

namespace {

using namespace nvinfer1;

// Of a fixed size, so that saying what went wrong cannot go wrong.
thread_local char failure[4096];

void say(char const* text) noexcept {
    std::snprintf(failure, sizeof failure, "%s", text == nullptr ? "" : text);
}

// Runs what may throw. Each function of the table goes through here.
template <typename Body>
trt_status guarded(Body body) noexcept {
    failure[0] = '\0';
    try {
        return body();
    } catch (std::exception const& error) {
        say(error.what());
    } catch (...) {
        say("an exception that is no std::exception");
    }
    return TRT_THREW;
}

trt_status accepted(bool ok) noexcept {
    return ok ? TRT_OK : TRT_REFUSED;
}

template <typename Handle, typename Object>
trt_status hand_over(Object* object, Handle** handle) noexcept {
    if (object == nullptr) {
        return TRT_REFUSED;
    }
    *handle = reinterpret_cast<Handle*>(object);
    return TRT_OK;
}

class Logger final : public ILogger {
public:
    Logger(trt_log log, void* context) noexcept : mLog(log), mContext(context) {}

    void log(Severity severity, AsciiChar const* message) noexcept override {
        mLog(mContext, static_cast<int>(severity), message == nullptr ? "" : message);
    }

private:
    trt_log mLog;
    void* mContext;
};

// What is behind each handle.
template <typename Handle> struct Behind;
template <> struct Behind<trt_logger> { using Object = Logger; };
template <> struct Behind<trt_builder> { using Object = IBuilder; };
template <> struct Behind<trt_network> { using Object = INetworkDefinition; };
template <> struct Behind<trt_parser> { using Object = nvonnxparser::IParser; };
template <> struct Behind<trt_config> { using Object = IBuilderConfig; };
template <> struct Behind<trt_profile> { using Object = IOptimizationProfile; };
template <> struct Behind<trt_memory> { using Object = IHostMemory; };
template <> struct Behind<trt_runtime> { using Object = IRuntime; };
template <> struct Behind<trt_engine> { using Object = ICudaEngine; };
template <> struct Behind<trt_context> { using Object = IExecutionContext; };

template <typename Handle>
typename Behind<Handle>::Object& behind(Handle* handle) noexcept {
    return *reinterpret_cast<typename Behind<Handle>::Object*>(handle);
}

template <typename Handle>
void destroy(Handle* handle) noexcept {
    guarded([=] {
        delete &behind(handle);
        return TRT_OK;
    });
}

cudaStream_t stream_of(trt_stream* stream) noexcept {
    return reinterpret_cast<cudaStream_t>(stream);
}

Dims to_dims(trt_dims const& dims) noexcept {
    Dims result{};
    result.nbDims = std::clamp(dims.count, 0, TRT_MAX_DIMS);
    std::copy_n(dims.sizes, result.nbDims, result.d);
    return result;
}

// TensorRT says with a negative count that there is no such shape.
trt_status from_dims(Dims const& dims, trt_dims* result) noexcept {
    static_assert(Dims::MAX_DIMS == TRT_MAX_DIMS);
    if (dims.nbDims < 0 || dims.nbDims > TRT_MAX_DIMS) {
        return TRT_REFUSED;
    }
    trt_dims found{};
    found.count = dims.nbDims;
    std::copy_n(dims.d, dims.nbDims, found.sizes);
    *result = found;
    return TRT_OK;
}

char const* error() noexcept {
    return failure;
}

trt_status logger_create(trt_log log, void* context, trt_logger** logger) noexcept {
    return guarded([=] { return hand_over(new Logger(log, context), logger); });
}

// The factories take the interface, which is not where the class starts unless the compiler says so.
void* interface_of(trt_logger* logger) noexcept {
    return static_cast<ILogger*>(&behind(logger));
}

trt_status builder_create(trt_factory factory, trt_logger* logger, trt_builder** builder) noexcept {
    return guarded([=] {
        auto* made = static_cast<IBuilder*>(factory(interface_of(logger), NV_TENSORRT_VERSION));
        return hand_over(made, builder);
    });
}

trt_status network_create(trt_builder* builder, trt_network** network) noexcept {
    // No flags: networks of both flavours are strongly typed, by default and without another choice.
    return guarded([=] { return hand_over(behind(builder).createNetworkV2(0), network); });
}

trt_status network_inputs(trt_network* network, int* count) noexcept {
    return guarded([=] {
        *count = behind(network).getNbInputs();
        return TRT_OK;
    });
}

trt_status network_outputs(trt_network* network, int* count) noexcept {
    return guarded([=] {
        *count = behind(network).getNbOutputs();
        return TRT_OK;
    });
}

trt_status describe(ITensor const* tensor, bool is_input, trt_tensor* result) noexcept {
    if (tensor == nullptr) {
        return TRT_REFUSED;
    }
    trt_tensor found{};
    found.name = tensor->getName();
    found.type = static_cast<int>(tensor->getType());
    found.is_input = is_input;
    trt_status const status = from_dims(tensor->getDimensions(), &found.dims);
    if (status == TRT_OK) {
        *result = found;
    }
    return status;
}

trt_status network_input(trt_network* network, int index, trt_tensor* tensor) noexcept {
    return guarded([=] { return describe(behind(network).getInput(index), true, tensor); });
}

trt_status network_output(trt_network* network, int index, trt_tensor* tensor) noexcept {
    return guarded([=] { return describe(behind(network).getOutput(index), false, tensor); });
}

// What a parser found wrong, one after the other, as far as there is room.
void say_errors(nvonnxparser::IParser const& parser) {
    std::size_t used = 0;
    for (int index = 0; index < parser.getNbErrors() && used < sizeof failure; ++index) {
        auto const* error = parser.getError(index);
        if (error == nullptr) {
            continue;
        }
        auto text = [](char const* found) { return found == nullptr ? "" : found; };
        int const length = std::snprintf(failure + used, sizeof failure - used, "%snode %d %s (%s): %s",
            used == 0 ? "" : "; ", error->node(), text(error->nodeName()), text(error->nodeOperator()),
            text(error->desc()));
        used += static_cast<std::size_t>(std::max(length, 0));
    }
}

trt_status parse(trt_parser_factory factory, trt_network* network, trt_logger* logger, void const* model,
    unsigned long long bytes, char const* path, trt_parser** parser) noexcept {
    return guarded([=] {
        // Owned, since the texts of errors may throw.
        std::unique_ptr<nvonnxparser::IParser> made(static_cast<nvonnxparser::IParser*>(
            factory(&behind(network), interface_of(logger), NV_ONNX_PARSER_VERSION)));
        if (made == nullptr) {
            return TRT_REFUSED;
        }
        if (!made->parse(model, bytes, path)) {
            say_errors(*made);
            return TRT_REFUSED;
        }
        return hand_over(made.release(), parser);
    });
}

trt_status config_create(trt_builder* builder, trt_config** config) noexcept {
    return guarded([=] { return hand_over(behind(builder).createBuilderConfig(), config); });
}

trt_status config_set_tf32(trt_config* config, int allowed) noexcept {
    return guarded([=] {
        if (allowed != 0) {
            behind(config).setFlag(BuilderFlag::kTF32);
        } else {
            behind(config).clearFlag(BuilderFlag::kTF32);
        }
        return TRT_OK;
    });
}

trt_status config_set_compute_capabilities(trt_config* config, int const* capabilities, int count) noexcept {
#if defined(TRT_MAJOR_RTX)
    return guarded([=] {
        bool ok = behind(config).setNbComputeCapabilities(count);
        for (int index = 0; ok && index < count; ++index) {
            ok = behind(config).setComputeCapability(static_cast<ComputeCapability>(capabilities[index]), index);
        }
        return accepted(ok);
    });
#else
    static_cast<void>(config), static_cast<void>(capabilities), static_cast<void>(count);
    return TRT_ABSENT;
#endif
}

trt_status profile_create(trt_builder* builder, trt_profile** profile) noexcept {
    return guarded([=] { return hand_over(behind(builder).createOptimizationProfile(), profile); });
}

trt_status profile_set(trt_profile* profile, char const* input, trt_dims const* min, trt_dims const* opt,
    trt_dims const* max) noexcept {
    return guarded([=] {
        auto& to = behind(profile);
        return accepted(to.setDimensions(input, OptProfileSelector::kMIN, to_dims(*min))
            && to.setDimensions(input, OptProfileSelector::kOPT, to_dims(*opt))
            && to.setDimensions(input, OptProfileSelector::kMAX, to_dims(*max)));
    });
}

trt_status config_add_profile(trt_config* config, trt_profile* profile) noexcept {
    return guarded([=] { return accepted(behind(config).addOptimizationProfile(&behind(profile)) >= 0); });
}

trt_status build(trt_builder* builder, trt_network* network, trt_config* config, trt_memory** memory) noexcept {
    return guarded([=] {
        return hand_over(behind(builder).buildSerializedNetwork(behind(network), behind(config)), memory);
    });
}

trt_status memory_bytes(trt_memory* memory, void const** data, unsigned long long* bytes) noexcept {
    return guarded([=] {
        *data = behind(memory).data();
        *bytes = behind(memory).size();
        return TRT_OK;
    });
}

trt_status runtime_create(trt_factory factory, trt_logger* logger, trt_runtime** runtime) noexcept {
    return guarded([=] {
        auto* made = static_cast<IRuntime*>(factory(interface_of(logger), NV_TENSORRT_VERSION));
        return hand_over(made, runtime);
    });
}

trt_status header_bytes(trt_runtime* runtime, unsigned long long* bytes) noexcept {
#if defined(TRT_MAJOR_RTX)
    return guarded([=] {
        int64_t const found = behind(runtime).getEngineHeaderSize();
        if (found < 0) {
            return TRT_REFUSED;
        }
        *bytes = static_cast<unsigned long long>(found);
        return TRT_OK;
    });
#else
    static_cast<void>(runtime), static_cast<void>(bytes);
    return TRT_ABSENT;
#endif
}

trt_status validity(trt_runtime* runtime, void const* engine, unsigned long long bytes, int* validity,
    unsigned long long* diagnostics) noexcept {
#if defined(TRT_MAJOR_RTX)
    return guarded([=] {
        uint64_t found = 0;
        auto const verdict = behind(runtime).getEngineValidity(engine, static_cast<int64_t>(bytes), &found);
        *validity = static_cast<int>(verdict);
        *diagnostics = found;
        return TRT_OK;
    });
#else
    static_cast<void>(runtime), static_cast<void>(engine), static_cast<void>(bytes);
    static_cast<void>(validity), static_cast<void>(diagnostics);
    return TRT_ABSENT;
#endif
}

trt_status deserialize(
    trt_runtime* runtime, void const* data, unsigned long long bytes, trt_engine** engine) noexcept {
    return guarded([=] { return hand_over(behind(runtime).deserializeCudaEngine(data, bytes), engine); });
}

trt_status engine_tensors(trt_engine* engine, int* count) noexcept {
    return guarded([=] {
        *count = behind(engine).getNbIOTensors();
        return TRT_OK;
    });
}

trt_status engine_tensor(trt_engine* engine, int index, trt_tensor* tensor) noexcept {
    return guarded([=] {
        auto& from = behind(engine);
        trt_tensor found{};
        found.name = from.getIOTensorName(index);
        if (found.name == nullptr) {
            return TRT_REFUSED;
        }
        found.type = static_cast<int>(from.getTensorDataType(found.name));
        found.is_input = from.getTensorIOMode(found.name) == TensorIOMode::kINPUT;
        trt_status const status = from_dims(from.getTensorShape(found.name), &found.dims);
        if (status == TRT_OK) {
            *tensor = found;
        }
        return status;
    });
}

trt_status engine_profiles(trt_engine* engine, int* count) noexcept {
    return guarded([=] {
        *count = behind(engine).getNbOptimizationProfiles();
        return TRT_OK;
    });
}

trt_status engine_profile(
    trt_engine* engine, char const* input, int profile, trt_dims* min, trt_dims* opt, trt_dims* max) noexcept {
    return guarded([=] {
        auto shape = [&](OptProfileSelector selector, trt_dims* to) {
            return from_dims(behind(engine).getProfileShape(input, profile, selector), to) == TRT_OK;
        };
        trt_dims found[3]{};
        bool const ok = shape(OptProfileSelector::kMIN, &found[0]) && shape(OptProfileSelector::kOPT, &found[1])
            && shape(OptProfileSelector::kMAX, &found[2]);
        if (!ok) {
            return TRT_REFUSED;
        }
        *min = found[0];
        *opt = found[1];
        *max = found[2];
        return TRT_OK;
    });
}

trt_status engine_device_bytes(trt_engine* engine, unsigned long long* bytes) noexcept {
    return guarded([=] {
        int64_t const found = behind(engine).getDeviceMemorySizeV2();
        if (found < 0) {
            return TRT_REFUSED;
        }
        *bytes = static_cast<unsigned long long>(found);
        return TRT_OK;
    });
}

trt_status engine_serialize(trt_engine* engine, trt_memory** memory) noexcept {
    return guarded([=] { return hand_over(behind(engine).serialize(), memory); });
}

trt_status context_create(trt_engine* engine, trt_context** context) noexcept {
    return guarded([=] { return hand_over(behind(engine).createExecutionContext(), context); });
}

trt_status context_set_profile(trt_context* context, int profile, trt_stream* stream) noexcept {
    return guarded(
        [=] { return accepted(behind(context).setOptimizationProfileAsync(profile, stream_of(stream))); });
}

trt_status context_set_input_shape(trt_context* context, char const* input, trt_dims const* dims) noexcept {
    return guarded([=] { return accepted(behind(context).setInputShape(input, to_dims(*dims))); });
}

trt_status context_tensor_shape(trt_context* context, char const* tensor, trt_dims* dims) noexcept {
    return guarded([=] { return from_dims(behind(context).getTensorShape(tensor), dims); });
}

trt_status context_set_tensor_address(trt_context* context, char const* tensor, void* address) noexcept {
    return guarded([=] { return accepted(behind(context).setTensorAddress(tensor, address)); });
}

trt_status context_enqueue_v3(trt_context* context, trt_stream* stream) noexcept {
    return guarded([=] { return accepted(behind(context).enqueueV3(stream_of(stream))); });
}

trt_status context_is_capturable(trt_context* context, trt_stream* stream, int* is_capturable) noexcept {
#if defined(TRT_MAJOR_RTX)
    return guarded([=] {
        *is_capturable = behind(context).isStreamCapturable(stream_of(stream));
        return TRT_OK;
    });
#else
    static_cast<void>(context), static_cast<void>(stream), static_cast<void>(is_capturable);
    return TRT_ABSENT;
#endif
}

// In the order of shim.h.
constexpr trt_shim TABLE{
    static_cast<int>(NV_TENSORRT_VERSION),
    error,
    logger_create,
    builder_create,
    destroy<trt_builder>,
    network_create,
    destroy<trt_network>,
    network_inputs,
    network_outputs,
    network_input,
    network_output,
    parse,
    destroy<trt_parser>,
    config_create,
    destroy<trt_config>,
    config_set_tf32,
    config_set_compute_capabilities,
    profile_create,
    profile_set,
    config_add_profile,
    build,
    memory_bytes,
    destroy<trt_memory>,
    runtime_create,
    destroy<trt_runtime>,
    header_bytes,
    validity,
    deserialize,
    destroy<trt_engine>,
    engine_tensors,
    engine_tensor,
    engine_profiles,
    engine_profile,
    engine_device_bytes,
    engine_serialize,
    context_create,
    destroy<trt_context>,
    context_set_profile,
    context_set_input_shape,
    context_tensor_shape,
    context_set_tensor_address,
    context_enqueue_v3,
    context_is_capturable,
};

} // namespace

extern "C" trt_shim const* TRT_JOIN(millrace_tensorrt, TRT_FLAVOUR)(void) {
    return &TABLE;
}
