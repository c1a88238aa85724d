// A TensorRT without arithmetic, for tests: it makes what the crate asks for, from the real headers of either flavour,
// and keeps books of every object. A model is text: `model` is one that it reads, `throw` one whose error throws, all
// else is refused. It builds where a profile covers the input, and deserialises where a test has put a GPU in.
//
// The interfaces call through some 400 virtual functions, of which the crate needs 40. So there are no classes with
// 400 overrides here: each table is filled by hand where a function is needed, and its other places end the process.

#include <NvInfer.h>
#include <NvOnnxParser.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using namespace nvinfer1;

namespace {

// Every object that is alive, with what it was made from.
std::mutex books;
std::map<void const*, void const*> alive;
int violations = 0;
int gpus = 0;

// Enters an object into the books as long as it is alive.
class Entry {
public:
    explicit Entry(void const* parent) {
        std::lock_guard<std::mutex> lock(books);
        alive.emplace(this, parent);
    }

    Entry(Entry const&) = delete;

    ~Entry() {
        std::lock_guard<std::mutex> lock(books);
        if (alive.erase(this) != 1) {
            ++violations;
        }
        for (auto const& [child, parent] : alive) {
            if (parent == this) {
                ++violations;
            }
        }
    }
};

// The one logger of the process. As the real library does, the first stays as long as there is any builder or runtime,
// whatever later ones were made with.
ILogger* registered = nullptr;
int users = 0;

class Registration {
public:
    explicit Registration(ILogger& logger) {
        std::lock_guard<std::mutex> lock(books);
        if (users++ == 0) {
            registered = &logger;
        }
        mLogger = registered;
        mIgnored = &logger != registered;
    }

    ~Registration() {
        std::lock_guard<std::mutex> lock(books);
        --users;
    }

    void log(ILogger::Severity severity, char const* message) const {
        mLogger->log(severity, message);
    }

    void say_if_ignored() const {
        if (mIgnored) {
            log(ILogger::Severity::kWARNING, "the logger differs from the registered one and is ignored");
        }
    }

private:
    ILogger* mLogger;
    bool mIgnored;
};

[[noreturn]] void unexpected() {
    std::fputs("the fake was asked for what it does not have\n", stderr);
    std::abort();
}

// The table of virtual functions of `V`, as the Itanium C++ ABI lays it out.
template <typename V>
class Table {
public:
    Table() {
        for (auto& place : mPlaces) {
            place = reinterpret_cast<void*>(unexpected);
        }
    }

    template <typename R, typename... A>
    Table& put(R (V::*method)(A...) noexcept, R (*function)(void*, A...)) {
        return put_at(place_of(method), reinterpret_cast<void*>(function));
    }

    template <typename R, typename... A>
    Table& put(R (V::*method)(A...) const noexcept, R (*function)(void*, A...)) {
        return put_at(place_of(method), reinterpret_cast<void*>(function));
    }

    void* const* start() const {
        // Before the first function there would be the offset to the object's start and its type.
        return mPlaces + 2;
    }

private:
    // A pointer to a virtual function is an offset into the table: plus one, or with a bit set elsewhere.
    template <typename Method>
    static std::size_t place_of(Method method) {
        static_assert(sizeof method == 2 * sizeof(std::ptrdiff_t));
        std::ptrdiff_t parts[2];
        std::memcpy(parts, &method, sizeof method);
        return static_cast<std::size_t>(parts[0]) / sizeof(void*);
    }

    Table& put_at(std::size_t place, void* function) {
        mPlaces[place + 2] = function;
        return *this;
    }

    void* mPlaces[400];
};

// What an interface's `mImpl` points to: a table, and the interface whose it is.
template <typename V, typename Owner>
class Implementation {
public:
    explicit Implementation(Owner* owner) : mTable(Owner::table().start()), mOwner(owner) {}

    V* get() {
        return reinterpret_cast<V*>(this);
    }

    static Owner& owner(void* self) {
        return *static_cast<Implementation*>(self)->mOwner;
    }

private:
    void* const* mTable;
    Owner* mOwner;
};

Dims dims(int64_t first, int64_t second) {
    Dims result{};
    result.nbDims = 2;
    result.d[0] = first;
    result.d[1] = second;
    return result;
}

bool same(char const* left, char const* right) {
    return std::strcmp(left, right) == 0;
}

char const MAGIC[] = "an engine of the fake's";

struct Memory final : IHostMemory {
    Entry entry{nullptr};
    std::vector<char> bytes;
    Implementation<apiv::VHostMemory, Memory> implementation{this};

    explicit Memory(std::vector<char> data) : bytes(std::move(data)) {
        mImpl = implementation.get();
    }

    static Table<apiv::VHostMemory> const& table() {
        static auto const table = Table<apiv::VHostMemory>()
            .put(&apiv::VHostMemory::data, +[](void* self) -> void* { return of(self).bytes.data(); })
            .put(&apiv::VHostMemory::size, +[](void* self) { return of(self).bytes.size(); });
        return table;
    }

    static Memory& of(void* self) {
        return Implementation<apiv::VHostMemory, Memory>::owner(self);
    }
};

struct Tensor final : ITensor {
    std::string name;
    DataType type;
    Dims shape;
    Implementation<apiv::VTensor, Tensor> implementation{this};

    Tensor(char const* called, DataType data, Dims size) : name(called), type(data), shape(size) {
        mImpl = implementation.get();
    }

    static Table<apiv::VTensor> const& table() {
        static auto const table = Table<apiv::VTensor>()
            .put(&apiv::VTensor::getName, +[](void* self) { return of(self).name.c_str(); })
            .put(&apiv::VTensor::getType, +[](void* self) { return of(self).type; })
            .put(&apiv::VTensor::getDimensions, +[](void* self) { return of(self).shape; });
        return table;
    }

    static Tensor& of(void* self) {
        return Implementation<apiv::VTensor, Tensor>::owner(self);
    }
};

struct Network final : INetworkDefinition {
    Entry entry;
    bool parsed = false;
    Tensor ids{"ids", DataType::kINT32, dims(-1, 2)};
    Tensor probability{"probability", DataType::kFLOAT, dims(-1, 1)};
    Implementation<apiv::VNetworkDefinition, Network> implementation{this};

    explicit Network(void const* builder) : entry(builder) {
        mImpl = implementation.get();
    }

    static Table<apiv::VNetworkDefinition> const& table() {
        using V = apiv::VNetworkDefinition;
        static auto const table = Table<V>()
            .put(&V::getNbInputs, +[](void* self) { return of(self).parsed ? 1 : 0; })
            .put(&V::getNbOutputs, +[](void* self) { return of(self).parsed ? 1 : 0; })
            .put(&V::getInput, +[](void* self, int32_t) -> ITensor* { return &of(self).ids; })
            .put(&V::getOutput, +[](void* self, int32_t) -> ITensor* { return &of(self).probability; });
        return table;
    }

    static Network& of(void* self) {
        return Implementation<apiv::VNetworkDefinition, Network>::owner(self);
    }
};

struct Profile final : IOptimizationProfile {
    Dims ids[3]{};
    Implementation<apiv::VOptimizationProfile, Profile> implementation{this};

    Profile() {
        mImpl = implementation.get();
    }

    static Table<apiv::VOptimizationProfile> const& table() {
        using V = apiv::VOptimizationProfile;
        static auto const table = Table<V>().put(&V::setDimensions,
            +[](void* self, char const* input, OptProfileSelector select, Dims const& size) {
                of(self).ids[static_cast<int>(select)] = size;
                return same(input, "ids") && size.nbDims == 2;
            });
        return table;
    }

    static Profile& of(void* self) {
        return Implementation<apiv::VOptimizationProfile, Profile>::owner(self);
    }
};

struct Config final : IBuilderConfig {
    Entry entry;
    std::vector<Profile const*> profiles;
    int capabilities = 0;
    Implementation<apiv::VBuilderConfig, Config> implementation{this};

    explicit Config(void const* builder) : entry(builder) {
        mImpl = implementation.get();
    }

    static Table<apiv::VBuilderConfig> const& table() {
        using V = apiv::VBuilderConfig;
        static auto const table = [] {
            Table<V> made;
            made.put(&V::setFlag, +[](void*, BuilderFlag) {})
                .put(&V::clearFlag, +[](void*, BuilderFlag) {})
                .put(&V::addOptimizationProfile, +[](void* self, IOptimizationProfile const* profile) {
                    of(self).profiles.push_back(static_cast<Profile const*>(profile));
                    return static_cast<int32_t>(of(self).profiles.size()) - 1;
                });
#if defined(TRT_MAJOR_RTX)
            made.put(&V::setNbComputeCapabilities, +[](void* self, int32_t count) {
                    of(self).capabilities = count;
                    return true;
                })
                .put(&V::setComputeCapability,
                    +[](void* self, ComputeCapability, int32_t index) { return index < of(self).capabilities; });
#endif
            return made;
        }();
        return table;
    }

    static Config& of(void* self) {
        return Implementation<apiv::VBuilderConfig, Config>::owner(self);
    }
};

struct Builder final : IBuilder {
    Entry entry{nullptr};
    Registration logger;
    std::vector<Profile*> profiles;
    int busy = 0;
    Implementation<apiv::VBuilder, Builder> implementation{this};

    explicit Builder(ILogger& to) : logger(to) {
        mImpl = implementation.get();
        logger.say_if_ignored();
    }

    ~Builder() override {
        for (auto* profile : profiles) {
            delete profile;
        }
        // Whoever has freed the logger too early is found out here.
        logger.log(ILogger::Severity::kVERBOSE, "the builder goes");
    }

    IHostMemory* build(Network const& network, Config const& config) {
        ++busy;
        if (busy != 1) {
            ++violations;
        }
        // Real builders log from threads of their own.
        std::thread([&] { logger.log(ILogger::Severity::kWARNING, "building"); }).join();
        --busy;
        if (!network.parsed || config.profiles.empty() || config.profiles[0]->ids[2].d[0] == 0) {
            logger.log(ILogger::Severity::kERROR, "the input ids has a dynamic shape and no profile");
            return nullptr;
        }
        std::vector<char> engine(512);
        std::memcpy(engine.data(), MAGIC, sizeof MAGIC);
        std::memcpy(engine.data() + 64, config.profiles[0]->ids, sizeof config.profiles[0]->ids);
        static_assert(64 + sizeof(Dims[3]) <= 512);
        return new Memory(std::move(engine));
    }

    static Table<apiv::VBuilder> const& table() {
        using V = apiv::VBuilder;
        static auto const table = Table<V>()
            .put(&V::createBuilderConfig,
                +[](void* self) -> IBuilderConfig* { return new Config(&of(self).entry); })
            .put(&V::createNetworkV2, +[](void* self, NetworkDefinitionCreationFlags) -> INetworkDefinition* {
                return new Network(&of(self).entry);
            })
            .put(&V::createOptimizationProfile, +[](void* self) -> IOptimizationProfile* {
                of(self).profiles.push_back(new Profile);
                return of(self).profiles.back();
            })
            .put(&V::buildSerializedNetwork,
                +[](void* self, INetworkDefinition& network, IBuilderConfig& config) -> IHostMemory* {
                    return of(self).build(static_cast<Network&>(network), static_cast<Config&>(config));
                });
        return table;
    }

    static Builder& of(void* self) {
        return Implementation<apiv::VBuilder, Builder>::owner(self);
    }
};

struct Engine;

struct Context final : IExecutionContext {
    Entry entry;
    Dims ids = dims(-1, 2);
    Dims max;
    std::map<std::string, void*> addresses;
    Implementation<apiv::VExecutionContext, Context> implementation{this};

    Context(void const* engine, Dims largest) : entry(engine), max(largest) {
        mImpl = implementation.get();
    }

    static Table<apiv::VExecutionContext> const& table() {
        using V = apiv::VExecutionContext;
        static auto const table = [] {
            Table<V> made;
            made.put(&V::setOptimizationProfileAsync,
                    +[](void*, int32_t profile, cudaStream_t) { return profile == 0; })
                .put(&V::setInputShape, +[](void* self, char const* name, Dims const& size) {
                    of(self).ids = size;
                    return same(name, "ids") && size.d[0] <= of(self).max.d[0];
                })
                .put(&V::getTensorShape, +[](void* self, char const* name) {
                    return same(name, "ids") ? of(self).ids : dims(of(self).ids.d[0], 1);
                })
                .put(&V::setTensorAddress, +[](void* self, char const* name, void* address) {
                    of(self).addresses[name] = address;
                    return true;
                })
                .put(&V::enqueueV3,
                    +[](void* self, cudaStream_t) { return of(self).addresses.size() == 2 && of(self).ids.d[0] > 0; });
#if defined(TRT_MAJOR_RTX)
            made.put(&V::isStreamCapturable, +[](void*, cudaStream_t) { return true; });
#endif
            return made;
        }();
        return table;
    }

    static Context& of(void* self) {
        return Implementation<apiv::VExecutionContext, Context>::owner(self);
    }
};

struct Engine final : ICudaEngine {
    Entry entry;
    std::vector<char> bytes;
    Dims profile[3];
    Implementation<apiv::VCudaEngine, Engine> implementation{this};

    Engine(void const* runtime, std::vector<char> data) : entry(runtime), bytes(std::move(data)) {
        std::memcpy(profile, bytes.data() + 64, sizeof profile);
        mImpl = implementation.get();
    }

    static Table<apiv::VCudaEngine> const& table() {
        using V = apiv::VCudaEngine;
        static auto const table = Table<V>()
            .put(&V::getNbIOTensors, +[](void*) { return 2; })
            .put(&V::getIOTensorName, +[](void*, int32_t index) { return index == 0 ? "ids" : "probability"; })
            .put(&V::getTensorDataType,
                +[](void*, char const* name) { return same(name, "ids") ? DataType::kINT32 : DataType::kFLOAT; })
            .put(&V::getTensorIOMode,
                +[](void*, char const* name) {
                    return same(name, "ids") ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
                })
            .put(&V::getTensorShape,
                +[](void*, char const* name) { return same(name, "ids") ? dims(-1, 2) : dims(-1, 1); })
            .put(&V::getNbOptimizationProfiles, +[](void*) { return 1; })
            .put(&V::getProfileShape,
                +[](void* self, char const* name, int32_t index, OptProfileSelector select) {
                    if (same(name, "ids") && index == 0) {
                        return of(self).profile[static_cast<int>(select)];
                    }
                    Dims none{};
                    none.nbDims = -1;
                    return none;
                })
            .put(&V::getDeviceMemorySizeV2, +[](void*) -> int64_t { return 4096; })
            .put(&V::serialize, +[](void* self) -> IHostMemory* { return new Memory(of(self).bytes); })
            .put(&V::createExecutionContext,
                +[](void* self, ExecutionContextAllocationStrategy) -> IExecutionContext* {
                    return new Context(&of(self).entry, of(self).profile[2]);
                });
        return table;
    }

    static Engine& of(void* self) {
        return Implementation<apiv::VCudaEngine, Engine>::owner(self);
    }
};

struct Runtime final : IRuntime {
    Entry entry{nullptr};
    Registration logger;
    Implementation<apiv::VRuntime, Runtime> implementation{this};

    explicit Runtime(ILogger& to) : logger(to) {
        mImpl = implementation.get();
        logger.say_if_ignored();
    }

    ~Runtime() override {
        logger.log(ILogger::Severity::kVERBOSE, "the runtime goes");
    }

    static Table<apiv::VRuntime> const& table() {
        using V = apiv::VRuntime;
        static auto const table = [] {
            Table<V> made;
            made.put(&V::deserializeCudaEngine, +[](void* self, void const* blob, std::size_t size) -> ICudaEngine* {
                if (gpus == 0 || size < 512) {
                    of(self).logger.log(ILogger::Severity::kERROR, "no CUDA-capable device is detected");
                    return nullptr;
                }
                auto const* data = static_cast<char const*>(blob);
                return new Engine(&of(self).entry, std::vector<char>(data, data + size));
            });
#if defined(TRT_MAJOR_RTX)
            made.put(&V::getEngineHeaderSize, +[](void*) -> int64_t { return 64; })
                .put(&V::getEngineValidity,
                    +[](void* self, void const* blob, int64_t, uint64_t* diagnostics) {
                        bool const ours = std::memcmp(blob, MAGIC, sizeof MAGIC) == 0;
                        // Without a GPU the real library says no, gives no reason, and logs an error.
                        auto const reason = EngineInvalidityDiagnostics::kMALFORMED_ENGINE;
                        *diagnostics = ours ? 0 : static_cast<uint64_t>(reason);
                        if (ours && gpus == 0) {
                            of(self).logger.log(ILogger::Severity::kINTERNAL_ERROR, "no driver");
                        }
                        return ours && gpus > 0 ? EngineValidity::kVALID : EngineValidity::kINVALID;
                    });
#endif
            return made;
        }();
        return table;
    }

    static Runtime& of(void* self) {
        return Implementation<apiv::VRuntime, Runtime>::owner(self);
    }
};

struct ParserError final : nvonnxparser::IParserError {
    bool throws = false;

    nvonnxparser::ErrorCode code() const override { return nvonnxparser::ErrorCode::kINVALID_NODE; }
    char const* desc() const override {
        if (throws) {
            throw std::runtime_error("thrown by the library");
        }
        return "no such operator";
    }
    char const* file() const override { return "fake.cpp"; }
    int line() const override { return 1; }
    char const* func() const override { return "parse"; }
    int node() const override { return 3; }
    char const* nodeName() const override { return "layer_0"; }
    char const* nodeOperator() const override { return "Frobnicate"; }
    char const* const* localFunctionStack() const override { return nullptr; }
    int32_t localFunctionStackSize() const override { return 0; }
};

struct Parser final : nvonnxparser::IParser {
    Entry entry;
    Network& network;
    ParserError error;
    bool failed = false;

    explicit Parser(Network& to) : entry(&to.entry), network(to) {}

    bool parse(void const* model, size_t size, char const*) noexcept override {
        std::string const text(static_cast<char const*>(model), size);
        network.parsed = text == "model";
        failed = !network.parsed;
        error.throws = text == "throw";
        return network.parsed;
    }
    int getNbErrors() const noexcept override { return failed ? 1 : 0; }
    nvonnxparser::IParserError const* getError(int) const noexcept override { return &error; }

    // The rest nobody asks for.
    bool parseFromFile(char const*, int) noexcept override { unexpected(); }
    bool supportsOperator(char const*) const noexcept override { unexpected(); }
    void clearErrors() noexcept override { unexpected(); }
    char const* const* getUsedVCPluginLibraries(int64_t&) const noexcept override { unexpected(); }
    void setFlags(nvonnxparser::OnnxParserFlags) noexcept override { unexpected(); }
    nvonnxparser::OnnxParserFlags getFlags() const noexcept override { unexpected(); }
    void clearFlag(nvonnxparser::OnnxParserFlag) noexcept override { unexpected(); }
    void setFlag(nvonnxparser::OnnxParserFlag) noexcept override { unexpected(); }
    bool getFlag(nvonnxparser::OnnxParserFlag) const noexcept override { unexpected(); }
    ITensor const* getLayerOutputTensor(char const*, int64_t) noexcept override { unexpected(); }
    bool supportsModelV2(void const*, size_t, char const*) noexcept override { unexpected(); }
    int64_t getNbSubgraphs() noexcept override { unexpected(); }
    bool isSubgraphSupported(int64_t) noexcept override { unexpected(); }
    int64_t* getSubgraphNodes(int64_t, int64_t&) noexcept override { unexpected(); }
    bool loadModelProto(void const*, size_t, char const*) noexcept override { unexpected(); }
    bool loadInitializer(char const*, void const*, size_t) noexcept override { unexpected(); }
    bool parseModelProto() noexcept override { unexpected(); }
    bool setBuilderConfig(IBuilderConfig const*) noexcept override { unexpected(); }
    void setRefitObserver(nvonnxparser::IRefitterObserver*) noexcept override { unexpected(); }
};

} // namespace

extern "C" int32_t getInferLibVersion() noexcept {
    return NV_TENSORRT_VERSION;
}

extern "C" void* createInferBuilder_INTERNAL(void* logger, int32_t) noexcept {
    return static_cast<IBuilder*>(new Builder(*static_cast<ILogger*>(logger)));
}

extern "C" void* createInferRuntime_INTERNAL(void* logger, int32_t) noexcept {
    return static_cast<IRuntime*>(new Runtime(*static_cast<ILogger*>(logger)));
}

extern "C" void* createNvOnnxParser_INTERNAL(void* network, void*, int) noexcept {
    auto& to = *static_cast<INetworkDefinition*>(network);
    return static_cast<nvonnxparser::IParser*>(new Parser(static_cast<Network&>(to)));
}

// What tests ask.
extern "C" int fake_alive() {
    std::lock_guard<std::mutex> lock(books);
    return static_cast<int>(alive.size());
}

extern "C" int fake_violations() {
    std::lock_guard<std::mutex> lock(books);
    return violations;
}

extern "C" void fake_put_gpu() {
    gpus = 1;
}
