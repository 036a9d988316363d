// A ggml device that computes nothing: it has the rules by which CUDA's device takes part in placing tensors, so that
// llama.cpp's own scheduler and allocator can be asked what a GPU would hold on a machine without one.
//
// As CUDA's (ggml/src/ggml-cuda/ggml-cuda.cu, fattn.cu): alignment 128, buffers that no other device reads, every
// operation supported, weights of the host computed with from 32 rows on, F16 copies of other keys and values behind
// flash attention, a host buffer type, asynchronous with events. Weights can be loaded to it, nothing can be run.
//
//   g++ -shared -fPIC -O1 -I$LLAMA_CPP/ggml/include -I$LLAMA_CPP/ggml/src stand_in_gpu.cpp -o stand_in_gpu.so
//
// LLAMA_CPP is the vendor/llama.cpp folder of llama-cpp-python's source distribution of the installed version.

#include "ggml-backend-impl.h"
#include "ggml-impl.h"

#include <cstdio>
#include <cstdlib>

namespace {

constexpr size_t GIB = 1024ull * 1024 * 1024;
constexpr int MAX_DEVICES = 8;

ggml_backend_device devices[MAX_DEVICES];
ggml_backend_buffer_type buffer_types[MAX_DEVICES];
char names[MAX_DEVICES][16];
int n_devices = 0;

int index_of(ggml_backend_dev_t dev) { return int(dev - devices); }

const char * buft_name(ggml_backend_buffer_type_t buft) { return names[buft - buffer_types]; }

// What lies on it lies in ordinary memory, under a type that no other device reads. malloc aligns to less than 128.
ggml_backend_buffer_t alloc_as(ggml_backend_buffer_type_t buft, size_t size) {
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size + 128);
    if (buffer) {
        buffer->buft = buft;
    }
    return buffer;
}

size_t buft_alignment(ggml_backend_buffer_type_t) { return 128; }

size_t buft_alloc_size(ggml_backend_buffer_type_t, const ggml_tensor * tensor) {
    size_t size = ggml_nbytes(tensor);
    if (tensor->op == GGML_OP_FLASH_ATTN_EXT) {
        for (int i = 1; i <= 2; i++) {
            if (tensor->src[i]->type != GGML_TYPE_F16) {
                size = GGML_PAD(size, 128) + 2 * ggml_nelements(tensor->src[i]);
            }
        }
    }
    if (ggml_is_quantized(tensor->type) && tensor->ne[0] % 512 != 0) {
        size += ggml_row_size(tensor->type, 512 - tensor->ne[0] % 512);
    }
    return size;
}

// Pinned host memory is ordinary memory here, under a type of its own as in CUDA.
ggml_backend_buffer_type host_type;
const char * host_name(ggml_backend_buffer_type_t) { return "GPU_Host"; }
size_t host_alignment(ggml_backend_buffer_type_t) { return 32; }
bool host_is_host(ggml_backend_buffer_type_t) { return true; }

ggml_guid guid = {0x57, 0x1d};

const char * backend_name(ggml_backend_t backend) { return names[index_of(backend->device)]; }
void backend_free(ggml_backend_t backend) { delete backend; }
void backend_synchronize(ggml_backend_t) {}
ggml_status backend_compute(ggml_backend_t, ggml_cgraph *) { abort(); }
void backend_event(ggml_backend_t, ggml_backend_event_t) {}

const char * dev_name(ggml_backend_dev_t dev) { return names[index_of(dev)]; }
const char * dev_description(ggml_backend_dev_t) { return "stand-in for a CUDA device"; }
void dev_memory(ggml_backend_dev_t, size_t * free, size_t * total) { *free = *total = 1024 * GIB; }
enum ggml_backend_dev_type dev_type(ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_GPU; }

void dev_props(ggml_backend_dev_t dev, ggml_backend_dev_props * props) {
    *props = {};
    props->name = dev_name(dev);
    props->description = dev_description(dev);
    props->type = dev_type(dev);
    dev_memory(dev, &props->memory_free, &props->memory_total);
    props->caps.async = true;
    props->caps.events = true;
}

ggml_backend_t dev_init(ggml_backend_dev_t dev, const char *) {
    auto * backend = new ggml_backend{};
    backend->guid = &guid;
    backend->device = dev;
    backend->iface.get_name = backend_name;
    backend->iface.free = backend_free;
    backend->iface.synchronize = backend_synchronize;
    backend->iface.graph_compute = backend_compute;
    backend->iface.event_record = backend_event;
    backend->iface.event_wait = backend_event;
    return backend;
}

ggml_backend_buffer_type_t dev_buft(ggml_backend_dev_t dev) { return &buffer_types[index_of(dev)]; }
ggml_backend_buffer_type_t dev_host_buft(ggml_backend_dev_t) { return &host_type; }
bool dev_supports_op(ggml_backend_dev_t, const ggml_tensor *) { return true; }
bool dev_supports_buft(ggml_backend_dev_t dev, ggml_backend_buffer_type_t buft) { return buft == dev_buft(dev); }

int64_t batch_size(const ggml_tensor * op) {
    switch (op->op) {
        case GGML_OP_GET_ROWS: return 0;
        case GGML_OP_MUL_MAT: return op->ne[1];
        case GGML_OP_MUL_MAT_ID:
        case GGML_OP_ROPE: return op->ne[2];
        default: return ggml_nrows(op);
    }
}

bool dev_offload_op(ggml_backend_dev_t, const ggml_tensor * op) { return batch_size(op) >= 32; }

ggml_backend_event_t dev_event_new(ggml_backend_dev_t dev) { return new ggml_backend_event{dev, nullptr}; }
void dev_event_free(ggml_backend_dev_t, ggml_backend_event_t event) { delete event; }
void dev_event_synchronize(ggml_backend_dev_t, ggml_backend_event_t) {}

const char * reg_name(ggml_backend_reg_t) { return "StandIn"; }
size_t reg_count(ggml_backend_reg_t) { return n_devices; }
ggml_backend_dev_t reg_device(ggml_backend_reg_t, size_t index) { return &devices[index]; }
void * reg_address(ggml_backend_reg_t, const char *) { return nullptr; }

ggml_backend_reg reg = {GGML_BACKEND_API_VERSION, {reg_name, reg_count, reg_device, reg_address}, nullptr};

} // namespace

// Make so many devices; hand the result to ggml_backend_register.
extern "C" ggml_backend_reg_t stand_in_gpus(int count) {
    n_devices = count < MAX_DEVICES ? count : MAX_DEVICES;
    for (int i = 0; i < n_devices; i++) {
        snprintf(names[i], sizeof(names[i]), "GPU%d", i);
        buffer_types[i] = {{buft_name, alloc_as, buft_alignment, nullptr, buft_alloc_size, nullptr}, &devices[i], nullptr};
        devices[i].iface = {
            dev_name, dev_description, dev_memory, dev_type, dev_props, dev_init, dev_buft, dev_host_buft,
            nullptr,
            dev_supports_op, dev_supports_buft, dev_offload_op, dev_event_new, dev_event_free, dev_event_synchronize,
        };
        devices[i].reg = &reg;
        devices[i].context = nullptr;
    }
    host_type = {{host_name, alloc_as, host_alignment, nullptr, nullptr, host_is_host}, &devices[0], nullptr};
    return &reg;
}
