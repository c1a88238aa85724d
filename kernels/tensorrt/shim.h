/* What Rust sees of TensorRT's C++ interface: opaque handles, plain values, and one table of functions a flavour.
 *
 * Pure C without includes, so that bindings are made from it without the headers of any compiler. A function returns
 * a `trt_status` and writes its result through its last pointer, which is left alone unless the status is TRT_OK.
 * No exception leaves a function. Nothing here loads a library: the caller hands the factories over, and must have
 * compared the library's version with `trt_shim.version` before.
 *
 * Handles but the logger's are the caller's to destroy, each once, a child before what it was made from. Texts live as long as the
 * object that they were asked of; `error` as long as the calling thread makes no other call. */
#ifndef MILLRACE_TENSORRT_SHIM_H
#define MILLRACE_TENSORRT_SHIM_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum trt_status {
    TRT_OK = 0,
    /* TensorRT said no; the logger and, for a parser, `error` say why. */
    TRT_REFUSED = 1,
    /* A C++ exception was caught; `error` has its text. */
    TRT_THREW = 2,
    /* This flavour has no such function. */
    TRT_ABSENT = 3
} trt_status;

typedef struct trt_logger trt_logger;
typedef struct trt_builder trt_builder;
typedef struct trt_network trt_network;
typedef struct trt_parser trt_parser;
typedef struct trt_config trt_config;
typedef struct trt_profile trt_profile;
typedef struct trt_memory trt_memory;
typedef struct trt_runtime trt_runtime;
typedef struct trt_engine trt_engine;
typedef struct trt_context trt_context;
/* CUDA's `cudaStream_t`. */
typedef struct trt_stream trt_stream;

#define TRT_MAX_DIMS 8

/* A shape; -1 is a size that is known only when the engine runs. */
typedef struct trt_dims {
    int count;
    long long sizes[TRT_MAX_DIMS];
} trt_dims;

/* An input or an output. `type` counts as TensorRT's DataType does. */
typedef struct trt_tensor {
    const char *name;
    int type;
    int is_input;
    trt_dims dims;
} trt_tensor;

/* `severity` counts as TensorRT's ILogger::Severity does: 0 is an internal error, 4 is verbose. Called from any thread. */
typedef void (*trt_log)(void *context, int severity, const char *message);

/* The factories, as the libraries export them: createInferBuilder_INTERNAL and createInferRuntime_INTERNAL, and
 * createNvOnnxParser_INTERNAL. */
typedef void *(*trt_factory)(void *logger, int version);
typedef void *(*trt_parser_factory)(void *network, void *logger, int version);

typedef struct trt_shim {
    /* Of the headers that this table was compiled against, as getInferLibVersion counts. */
    int version;
    const char *(*error)(void);

    /* There is nothing to destroy a logger with: TensorRT goes on calling the first of a process. */
    trt_status (*logger_create)(trt_log log, void *context, trt_logger **logger);

    trt_status (*builder_create)(trt_factory factory, trt_logger *logger, trt_builder **builder);
    void (*builder_destroy)(trt_builder *builder);
    /* A network holds on to `parser`'s weights: the parser must outlive the network's last build. */
    trt_status (*network_create)(trt_builder *builder, trt_network **network);
    void (*network_destroy)(trt_network *network);
    trt_status (*network_inputs)(trt_network *network, int *count);
    trt_status (*network_outputs)(trt_network *network, int *count);
    trt_status (*network_input)(trt_network *network, int index, trt_tensor *tensor);
    trt_status (*network_output)(trt_network *network, int index, trt_tensor *tensor);
    /* `path` may be null; tables outside of the model are looked for beside it. */
    trt_status (*parse)(trt_parser_factory factory, trt_network *network, trt_logger *logger, const void *model,
                        unsigned long long bytes, const char *path, trt_parser **parser);
    void (*parser_destroy)(trt_parser *parser);

    trt_status (*config_create)(trt_builder *builder, trt_config **config);
    void (*config_destroy)(trt_config *config);
    trt_status (*config_set_tf32)(trt_config *config, int allowed);
    trt_status (*config_set_compute_capabilities)(trt_config *config, const int *capabilities, int count);
    /* The builder keeps the profile. */
    trt_status (*profile_create)(trt_builder *builder, trt_profile **profile);
    trt_status (*profile_set)(trt_profile *profile, const char *input, const trt_dims *min, const trt_dims *opt,
                              const trt_dims *max);
    trt_status (*config_add_profile)(trt_config *config, trt_profile *profile);
    trt_status (*build)(trt_builder *builder, trt_network *network, trt_config *config, trt_memory **memory);
    trt_status (*memory_bytes)(trt_memory *memory, const void **data, unsigned long long *bytes);
    void (*memory_destroy)(trt_memory *memory);

    trt_status (*runtime_create)(trt_factory factory, trt_logger *logger, trt_runtime **runtime);
    void (*runtime_destroy)(trt_runtime *runtime);
    trt_status (*header_bytes)(trt_runtime *runtime, unsigned long long *bytes);
    trt_status (*validity)(trt_runtime *runtime, const void *engine, unsigned long long bytes, int *validity,
                           unsigned long long *diagnostics);
    trt_status (*deserialize)(trt_runtime *runtime, const void *data, unsigned long long bytes, trt_engine **engine);

    void (*engine_destroy)(trt_engine *engine);
    trt_status (*engine_tensors)(trt_engine *engine, int *count);
    trt_status (*engine_tensor)(trt_engine *engine, int index, trt_tensor *tensor);
    trt_status (*engine_profiles)(trt_engine *engine, int *count);
    trt_status (*engine_profile)(trt_engine *engine, const char *input, int profile, trt_dims *min, trt_dims *opt,
                                 trt_dims *max);
    trt_status (*engine_device_bytes)(trt_engine *engine, unsigned long long *bytes);
    trt_status (*engine_serialize)(trt_engine *engine, trt_memory **memory);
    trt_status (*context_create)(trt_engine *engine, trt_context **context);

    void (*context_destroy)(trt_context *context);
    trt_status (*context_set_profile)(trt_context *context, int profile, trt_stream *stream);
    trt_status (*context_set_input_shape)(trt_context *context, const char *input, const trt_dims *dims);
    trt_status (*context_tensor_shape)(trt_context *context, const char *tensor, trt_dims *dims);
    trt_status (*context_set_tensor_address)(trt_context *context, const char *tensor, void *address);
    trt_status (*context_enqueue_v3)(trt_context *context, trt_stream *stream);
    trt_status (*context_is_capturable)(trt_context *context, trt_stream *stream, int *is_capturable);
} trt_shim;

/* The same source compiled against the headers of each flavour. */
const trt_shim *millrace_tensorrt_rtx(void);
const trt_shim *millrace_tensorrt_enterprise(void);

#ifdef __cplusplus
}
#endif

#endif
