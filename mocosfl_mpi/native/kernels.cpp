// Convolution, GroupNorm, weight standardisation and SGD for many small networks at once. Compiled on first use.
//
// Images are [samples, height, width, channels] in T (float, or bfloat16 as uint16_t), weights and statistics float.
// Sample n belongs to lane n / per_lane; each lane (client) has weights of its own. Sums are taken in one fixed order
// for every lane, whatever the number of threads, so a result depends on neither threads nor company.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

using bf16 = uint16_t;

template <class E, int V>
struct Vector {
    typedef E type __attribute__((vector_size(sizeof(E) * V)));
};
template <int V>
using floats = typename Vector<float, V>::type;

template <int V>
inline floats<V> load(const float* p) {
    floats<V> v;
    memcpy(&v, p, sizeof v);
    return v;
}

template <int V>
inline floats<V> load(const bf16* p) {
    typename Vector<uint16_t, V>::type half;
    memcpy(&half, p, sizeof half);
    typename Vector<uint32_t, V>::type wide = __builtin_convertvector(half, typename Vector<uint32_t, V>::type) << 16;
    floats<V> v;
    memcpy(&v, &wide, sizeof v);
    return v;
}

template <int V>
inline void store(float* p, floats<V> v) {
    memcpy(p, &v, sizeof v);
}

template <int V>
inline void store(bf16* p, floats<V> v) {
#if defined(__AVX512BF16__)
    if constexpr (V == 16) {
        __m256bh half = _mm512_cvtneps_pbh((__m512)v);
        memcpy(p, &half, sizeof half);
        return;
    }
#endif
    typename Vector<uint32_t, V>::type bits;  // round to nearest even; a NaN keeps a quiet bit
    memcpy(&bits, &v, sizeof bits);
    auto rounded = bits + 0x7fff + ((bits >> 16) & 1);
    auto nan = (typename Vector<uint32_t, V>::type)(v != v);
    rounded = (rounded & ~nan) | (nan & 0x7fc00000u);
    auto half = __builtin_convertvector(rounded >> 16, typename Vector<uint16_t, V>::type);
    memcpy(p, &half, sizeof half);
}

inline float widen(float v) { return v; }
inline float widen(bf16 v) {
    uint32_t bits = uint32_t(v) << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
inline void narrow(float v, float* p) { *p = v; }
inline void narrow(float v, bf16* p) {
    uint32_t bits;
    memcpy(&bits, &v, 4);
    *p = v != v ? 0x7fc0 : bf16((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

template <int V>
inline floats<V> zero_where_not_positive(floats<V> v, floats<V> by) {
    auto keep = by > 0;
    typename Vector<int32_t, V>::type bits;
    memcpy(&bits, &v, sizeof bits);
    bits &= keep;
    memcpy(&v, &bits, sizeof v);
    return v;
}

// ------------------------------------------------------------------------------------------------ GroupNorm

// Sums over pixels of (x - shift) and its square, for NB vectors of channels at a time.
template <class T, int V, int NB>
void moments(const T* x, const float* shift, float* sum, float* square, int64_t pixels, int64_t channels) {
    for (int64_t c = 0; c < channels; c += V * NB) {
        floats<V> s[NB], q[NB], k[NB];
        for (int b = 0; b < NB; b++) k[b] = load<V>(shift + c + b * V), s[b] = q[b] = k[b] - k[b];
        const T* p = x + c;
        for (int64_t i = 0; i < pixels; i++, p += channels)
            for (int b = 0; b < NB; b++) {
                floats<V> d = load<V>(p + b * V) - k[b];
                s[b] += d;
                q[b] += d * d;
            }
        for (int b = 0; b < NB; b++) store<V>(sum + c + b * V, s[b]), store<V>(square + c + b * V, q[b]);
    }
}

template <class T, int V, int NB>
void scale_shift(const T* x, const T* residual, T* y, const float* mean, const float* a, const float* b, int64_t pixels,
                 int64_t channels, bool relu) {
    for (int64_t c = 0; c < channels; c += V * NB) {
        floats<V> va[NB], vb[NB], m[NB];
        for (int n = 0; n < NB; n++)
            va[n] = load<V>(a + c + n * V), vb[n] = load<V>(b + c + n * V), m[n] = load<V>(mean + c + n * V);
        for (int64_t i = 0; i < pixels; i++) {
            int64_t at = i * channels + c;
            for (int n = 0; n < NB; n++) {
                floats<V> v = (load<V>(x + at + n * V) - m[n]) * va[n] + vb[n];
                if (residual) v += load<V>(residual + at + n * V);
                if (relu) v = zero_where_not_positive<V>(v, v);
                store<V>(y + at + n * V, v);
            }
        }
    }
}

// Sums over pixels of the masked gradient, and of it times x - mean. The mask is y > 0, or what y was made of where y
// is null.
template <class T, int V, int NB>
void gradient_moments(const T* dy, const T* x, const T* y, const float* a, const float* b, const float* mean, float* sum,
                      float* product, int64_t pixels, int64_t channels, bool relu) {
    for (int64_t c = 0; c < channels; c += V * NB) {
        floats<V> s[NB], q[NB], va[NB], vb[NB], m[NB];
        for (int n = 0; n < NB; n++) {
            va[n] = load<V>(a + c + n * V), vb[n] = load<V>(b + c + n * V), m[n] = load<V>(mean + c + n * V);
            s[n] = q[n] = va[n] - va[n];
        }
        for (int64_t i = 0; i < pixels; i++) {
            int64_t at = i * channels + c;
            for (int n = 0; n < NB; n++) {
                floats<V> v = load<V>(x + at + n * V) - m[n], d = load<V>(dy + at + n * V);
                if (relu) d = zero_where_not_positive<V>(d, y ? load<V>(y + at + n * V) : v * va[n] + vb[n]);
                s[n] += d;
                q[n] += d * v;
            }
        }
        for (int n = 0; n < NB; n++) store<V>(sum + c + n * V, s[n]), store<V>(product + c + n * V, q[n]);
    }
}

template <class T, int V, int NB>
void gradient_apply(const T* dy, const T* x, const T* y, const float* mean, const float* a, const float* b,
                    const float* slope, const float* offset, T* dx, T* dresidual, int64_t pixels, int64_t channels,
                    bool relu) {
    for (int64_t c = 0; c < channels; c += V * NB) {
        floats<V> va[NB], vb[NB], vs[NB], vo[NB], m[NB];
        for (int n = 0; n < NB; n++) {
            m[n] = load<V>(mean + c + n * V);
            va[n] = load<V>(a + c + n * V), vb[n] = load<V>(b + c + n * V);
            vs[n] = load<V>(slope + c + n * V), vo[n] = load<V>(offset + c + n * V);
        }
        for (int64_t i = 0; i < pixels; i++) {
            int64_t at = i * channels + c;
            for (int n = 0; n < NB; n++) {
                floats<V> v = load<V>(x + at + n * V) - m[n], d = load<V>(dy + at + n * V);
                if (relu) d = zero_where_not_positive<V>(d, y ? load<V>(y + at + n * V) : v * va[n] + vb[n]);
                if (dresidual) store<V>(dresidual + at + n * V, d);
                store<V>(dx + at + n * V, d * va[n] + v * vs[n] + vo[n]);
            }
        }
    }
}

template <class T, int V, int NB>
struct GroupNorm {
    static void forward(const T* x, const T* residual, T* y, const float* weight, const float* bias, float* stats,
                        int64_t samples, int64_t per_lane, int64_t pixels, int64_t channels, int64_t groups, bool relu,
                        float epsilon, int threads) {
        int64_t width = channels / groups;
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int64_t n = 0; n < samples; n++) {
            float shift[channels], sum[channels], square[channels], mean[channels], a[channels];
            const T* mine = x + n * pixels * channels;
            const float *w = weight + n / per_lane * channels, *o = bias + n / per_lane * channels;
            // Deviations from one of the group's own values: no cancellation where the mean is large.
            for (int64_t c = 0; c < channels; c++) shift[c] = widen(mine[c / width * width]);
            moments<T, V, NB>(mine, shift, sum, square, pixels, channels);
            for (int64_t g = 0; g < groups; g++) {
                double s = 0, q = 0, count = double(width) * pixels;
                for (int64_t c = g * width; c < (g + 1) * width; c++) s += sum[c], q += square[c];
                double centre = s / count, variance = q / count - centre * centre;
                float rstd = float(1.0 / sqrt((variance > 0 ? variance : variance * 0) + epsilon));
                stats[(n * groups + g) * 2] = float(centre + shift[g * width]);
                stats[(n * groups + g) * 2 + 1] = rstd;
                for (int64_t c = g * width; c < (g + 1) * width; c++)
                    a[c] = w[c] * rstd, mean[c] = stats[(n * groups + g) * 2];
            }
            int64_t at = n * pixels * channels;
            scale_shift<T, V, NB>(mine, residual ? residual + at : nullptr, y + at, mean, a, o, pixels, channels, relu);
        }
    }

    static void backward(const T* dy, const T* x, const T* y, const float* stats, const float* weight, const float* bias,
                         T* dx, T* dresidual, float* dweight, float* dbias, int64_t samples, int64_t per_lane,
                         int64_t pixels, int64_t channels, int64_t groups, bool relu, int threads) {
        int64_t width = channels / groups;
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int64_t n = 0; n < samples; n++) {
            float a[channels], mean[channels], slope[channels], offset[channels];
            float sum[channels], product[channels];
            const float *w = weight + n / per_lane * channels, *o = bias + n / per_lane * channels;
            const float* own = stats + n * groups * 2;
            for (int64_t c = 0; c < channels; c++) {
                mean[c] = own[c / width * 2];
                a[c] = w[c] * own[c / width * 2 + 1];
            }
            int64_t at = n * pixels * channels;
            const T* mask = y ? y + at : nullptr;
            gradient_moments<T, V, NB>(dy + at, x + at, mask, a, o, mean, sum, product, pixels, channels, relu);
            for (int64_t g = 0; g < groups; g++) {
                float rstd = own[g * 2 + 1];
                double s = 0, q = 0, count = double(width) * pixels;
                for (int64_t c = g * width; c < (g + 1) * width; c++) {
                    dbias[n * channels + c] = sum[c];
                    dweight[n * channels + c] = product[c] * rstd;
                    s += double(w[c]) * sum[c];
                    q += double(w[c]) * product[c] * rstd;
                }
                for (int64_t c = g * width; c < (g + 1) * width; c++) {
                    slope[c] = float(-rstd * rstd * q / count);
                    offset[c] = float(-rstd * s / count);
                }
            }
            gradient_apply<T, V, NB>(dy + at, x + at, mask, mean, a, o, slope, offset, dx + at,
                                     dresidual ? dresidual + at : nullptr, pixels, channels, relu);
        }
    }
};

// The widest vectors that divide the channels.
template <class T, class F>
void with_widest(int64_t channels, F&& use) {
    if (channels % 64 == 0) use(GroupNorm<T, 16, 4>());
    else if (channels % 16 == 0) use(GroupNorm<T, 16, 1>());
    else if (channels % 8 == 0) use(GroupNorm<T, 8, 1>());
    else use(GroupNorm<T, 4, 1>());
}

// ------------------------------------------------------------------------------------ weight standardisation

// Filters [rows, inputs, taps] to T [rows, taps, padded inputs], centred and divided by (unbiased deviation + 1e-5).
// Lanes of `outputs` rows begin lane_stride numbers apart.
template <class T>
void filters_forward(const float* weight, T* out, float* stats, int64_t rows, int64_t outputs, int64_t lane_stride,
                     int64_t inputs, int64_t padded, int64_t taps, bool standardise, int threads) {
    int64_t count = inputs * taps;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const float* w = weight + r / outputs * lane_stride + r % outputs * count;
        double mean = 0, square = 0;
        float scale = 1;
        if (standardise) {
#pragma omp simd reduction(+ : mean)
            for (int64_t i = 0; i < count; i++) mean += w[i];
            mean /= double(count);
#pragma omp simd reduction(+ : square)
            for (int64_t i = 0; i < count; i++) square += (w[i] - mean) * (w[i] - mean);
            double deviation = sqrt(square / double(count - 1));
            scale = float(1.0 / (deviation + 1e-5));
            stats[r * 3] = float(mean), stats[r * 3 + 1] = scale, stats[r * 3 + 2] = float(deviation);
        }
        float centre = float(mean);
        T* o = out + r * taps * padded;
        for (int64_t t = 0; t < taps; t++) {
            int64_t i = 0;
            for (; i + 16 <= inputs; i += 16) {
                float values[16];
                for (int j = 0; j < 16; j++) values[j] = w[(i + j) * taps + t];
                store<16>(o + t * padded + i, (load<16>(values) - centre) * scale);
            }
            for (; i < padded; i++) narrow(i < inputs ? (w[i * taps + t] - centre) * scale : 0.0f, o + t * padded + i);
        }
    }
}

// Gradient at the standardised filters to that at the filters. Element (row, tap, input) of the former lies at
// lane * lane_stride + output * output_stride + tap * tap_stride + input * input_stride, row = lane * outputs + output.
// Lanes of the filters begin weight_stride numbers apart, of their gradient out_stride.
void filters_backward(const float* gradient, const float* weight, const float* stats, float* out, int64_t rows,
                      int64_t outputs, int64_t weight_stride, int64_t out_stride, int64_t inputs, int64_t taps,
                      int64_t lane_stride, int64_t output_stride, int64_t tap_stride, int64_t input_stride,
                      bool standardise, int threads) {
    int64_t count = inputs * taps;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const float* g = gradient + r / outputs * lane_stride + r % outputs * output_stride;
        const float* w = weight + r / outputs * weight_stride + r % outputs * count;
        float* d = out + r / outputs * out_stride + r % outputs * count;
        for (int64_t i = 0; i < inputs; i++)
            for (int64_t t = 0; t < taps; t++) d[i * taps + t] = g[t * tap_stride + i * input_stride];
        if (!standardise) continue;
        float mean = stats[r * 3], scale = stats[r * 3 + 1], deviation = stats[r * 3 + 2], sum = 0, product = 0;
#pragma omp simd reduction(+ : sum, product)
        for (int64_t i = 0; i < count; i++) sum += d[i], product += d[i] * (w[i] - mean);
        // w^ = c / (s + e), c = w - mean, s = sqrt(sum c^2 / (count - 1)).
        float slope = deviation > 0 ? product * scale * scale / (deviation * float(count - 1)) : 0.0f;
        float offset = sum / float(count) * scale;
        for (int64_t i = 0; i < count; i++) d[i] = d[i] * scale - offset - slope * (w[i] - mean);
    }
}

// ------------------------------------------------------------------------------------------------------ SGD

// v = momentum * v + (g + decay * w), w = w - rate * v, with one rounding each time a product is added. Lanes of `width`
// numbers begin weight_stride and velocity_stride apart; those that are not answered stay as they are.
void sgd(float* weight, float* velocity, const float* gradient, const float* rates, const bool* answered, int64_t lanes,
         int64_t width, int64_t weight_stride, int64_t velocity_stride, float momentum, float decay, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t lane = 0; lane < lanes; lane++) {
        if (!answered[lane]) continue;
        float *w = weight + lane * weight_stride, *v = velocity + lane * velocity_stride, rate = rates[lane];
        const float* g = gradient + lane * width;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) {
            v[i] = __builtin_fmaf(momentum, v[i], __builtin_fmaf(decay, w[i], g[i]));
            w[i] = __builtin_fmaf(-rate, v[i], w[i]);
        }
    }
}

// ---------------------------------------------------------------------------------------------- convolution
#if defined(__AVX512F__)

// One 32-bit unit holds one float or two neighbouring bfloat16; products of units are added to 16 floats.
template <class T>
struct Unit;
template <>
struct Unit<float> {
    static constexpr int numbers = 1;
    static inline __m512 add(__m512 acc, __m512 w, const float* x) { return _mm512_fmadd_ps(w, _mm512_set1_ps(*x), acc); }
    static inline __m512 read(const float* p) { return _mm512_loadu_ps(p); }
    using vector = __m512;
};
#if defined(__AVX512BF16__)
template <>
struct Unit<bf16> {
    static constexpr int numbers = 2;
    using vector = __m512bh;
    static inline __m512 add(__m512 acc, __m512bh w, const bf16* x) {
        int32_t pair;
        memcpy(&pair, x, 4);
        return _mm512_dpbf16_ps(acc, w, (__m512bh)_mm512_set1_epi32(pair));
    }
    static inline __m512bh read(const bf16* p) { return (__m512bh)_mm512_loadu_si512(p); }
};
#endif

inline int64_t up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

struct Shape {  // of one convolution; height and width are the input's
    int64_t height, width, inputs, outputs, kernel, stride, padding, out_height, out_width;
};

// Filters [outputs, taps, inputs] of a lane to [taps, inputs / numbers, outputs padded to 16, numbers].
// Turned: filters of the input's gradient, with outputs and inputs exchanged and the taps reversed.
template <class T>
void pack(const T* filters, T* out, int64_t outputs, int64_t inputs, int64_t taps, bool turned) {
    constexpr int U = Unit<T>::numbers;
    int64_t rows = turned ? outputs : inputs, columns = turned ? inputs : outputs, padded = up(columns, 16);
    for (int64_t t = 0; t < taps; t++)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < padded; c++) {
                int64_t from = turned ? (r * taps + taps - 1 - t) * inputs + c : (c * taps + t) * inputs + r;
                out[((t * (rows / U) + r / U) * padded + c) * U + r % U] = c < columns ? filters[from] : T(0);
            }
}

// Copy an image into the middle of a zeroed frame, `spread` pixels apart.
template <class T>
void frame(const T* image, T* out, int64_t height, int64_t width, int64_t channels, int64_t framed_width, int64_t top,
           int64_t spread) {
    for (int64_t y = 0; y < height; y++) {
        T* row = out + ((top + y * spread) * framed_width + top) * channels;
        if (spread == 1) memcpy(row, image + y * width * channels, sizeof(T) * width * channels);
        else
            for (int64_t x = 0; x < width; x++)
                memcpy(row + x * spread * channels, image + (y * width + x) * channels, sizeof(T) * channels);
    }
}

// P pixels of a row, B vectors of 16 outputs.
template <class T, int P, int B>
inline void tile(const T* x, const T* packed, T* y, const float* bias, int64_t pixel_step, int64_t row_step, int64_t units,
                 int64_t kernel, int64_t inputs, int64_t padded, int64_t outputs, int64_t o, bool relu) {
    constexpr int U = Unit<T>::numbers;
    __m512 acc[P][B];
    for (int b = 0; b < B; b++) {
        __m512 start = _mm512_setzero_ps();
        if (bias) {
            __mmask16 mask = outputs - o - b * 16 >= 16 ? 0xffff : (1 << (outputs - o - b * 16)) - 1;
            start = _mm512_maskz_loadu_ps(mask, bias + o + b * 16);
        }
        for (int p = 0; p < P; p++) acc[p][b] = start;
    }
    const T* w = packed + o * U;
    for (int64_t ky = 0; ky < kernel; ky++)
        for (int64_t kx = 0; kx < kernel; kx++) {
            const T* at = x + ky * row_step + kx * inputs;
            for (int64_t u = 0; u < units; u++, w += padded * U) {
                typename Unit<T>::vector filters[B];
                for (int b = 0; b < B; b++) filters[b] = Unit<T>::read(w + b * 16 * U);
#pragma GCC unroll 8
                for (int p = 0; p < P; p++)
                    for (int b = 0; b < B; b++) acc[p][b] = Unit<T>::add(acc[p][b], filters[b], at + p * pixel_step + u * U);
            }
        }
    for (int p = 0; p < P; p++)
        for (int b = 0; b < B; b++) {
            __m512 v = relu ? _mm512_max_ps(acc[p][b], _mm512_setzero_ps()) : acc[p][b];
            T* to = y + p * outputs + o + b * 16;
            if (outputs - o - b * 16 >= 16) store<16>(to, (floats<16>)v);
            else {
                float values[16];
                memcpy(values, &v, sizeof values);
                for (int64_t c = 0; c < outputs - o - b * 16; c++) narrow(values[c], to + c);
            }
        }
}

template <class T, int B>
void rows_of_tiles(const T* x, const T* packed, T* y, const float* bias, const Shape& s, int64_t framed_width, int64_t o,
                   bool relu) {
    int64_t pixel = s.stride * s.inputs, row = framed_width * s.inputs, units = s.inputs / Unit<T>::numbers;
    int64_t padded = up(s.outputs, 16);
    for (int64_t oy = 0; oy < s.out_height; oy++) {
        const T* from = x + oy * s.stride * row;
        T* to = y + oy * s.out_width * s.outputs;
        int64_t ox = 0;
#define TILES(P)                                                                                                     \
    for (; ox + P <= s.out_width; ox += P)                                                                           \
        tile<T, P, B>(from + ox * pixel, packed, to + ox * s.outputs, bias, pixel, row, units, s.kernel, s.inputs, padded, \
                      s.outputs, o, relu);
        TILES(8) TILES(4) TILES(2) TILES(1)
#undef TILES
    }
}

// `spread` > 1 sets the input's pixels apart (for the gradient at the input of a strided convolution).
template <class T>
void conv_forward(const T* x, const T* filters, const float* bias, T* y, int64_t samples, int64_t per_lane,
                  const Shape& s, int64_t spread, bool turned, bool relu, int threads) {
    int64_t framed_height = (s.out_height - 1) * s.stride + s.kernel, framed_width = (s.out_width - 1) * s.stride + s.kernel;
    framed_height = framed_height > s.padding + (s.height - 1) * spread + 1 ? framed_height : s.padding + (s.height - 1) * spread + 1;
    framed_width = framed_width > s.padding + (s.width - 1) * spread + 1 ? framed_width : s.padding + (s.width - 1) * spread + 1;
    int64_t taps = s.kernel * s.kernel, padded = up(s.outputs, 16);
    int64_t packed_size = taps * s.inputs * padded, filter_size = taps * s.inputs * s.outputs;
#pragma omp parallel num_threads(threads)
    {
        T* framed = (T*)calloc(framed_height * framed_width * s.inputs + 64, sizeof(T));
        T* packed = (T*)aligned_alloc(64, up(packed_size * sizeof(T), 64));
        int64_t present = -1;
#pragma omp for schedule(static)
        for (int64_t n = 0; n < samples; n++) {
            int64_t lane = n / per_lane;
            if (lane != present) {
                // Turned filters lie as [inputs of this call, taps, outputs of this call].
                if (turned) pack<T>(filters + lane * filter_size, packed, s.inputs, s.outputs, taps, true);
                else pack<T>(filters + lane * filter_size, packed, s.outputs, s.inputs, taps, false);
                present = lane;
            }
            frame(x + n * s.height * s.width * s.inputs, framed, s.height, s.width, s.inputs, framed_width, s.padding, spread);
            T* to = y + n * s.out_height * s.out_width * s.outputs;
            const float* mine = bias ? bias + lane * s.outputs : nullptr;
            int64_t o = 0;
            for (; o + 32 <= padded; o += 32) rows_of_tiles<T, 2>(framed, packed, to, mine, s, framed_width, o, relu);
            if (o < padded) rows_of_tiles<T, 1>(framed, packed, to, mine, s, framed_width, o, relu);
        }
        free(framed);
        free(packed);
    }
}

// Rows [pixels, channels] to units of `numbers` pixels: [units, padded channels, numbers]; pixels lie `step` apart.
template <class T>
void interleave(const T* row, T* out, int64_t pixels, int64_t channels, int64_t padded, int64_t step) {
    constexpr int U = Unit<T>::numbers;
    if constexpr (U == 1) {
        for (int64_t p = 0; p < pixels; p++) memcpy(out + p * padded, row + p * step, sizeof(T) * channels);
        return;
    }
    for (int64_t p = 0; p + 1 < pixels; p += 2) {
        const T *first = row + p * step, *second = first + step;
        uint32_t* to = (uint32_t*)(out + p * padded);
        for (int64_t c = 0; c < channels; c++) to[c] = uint32_t(first[c]) | uint32_t(second[c]) << 16;
    }
    if (pixels % 2) {
        const T* last = row + (pixels - 1) * step;
        uint32_t* to = (uint32_t*)(out + (pixels - 1) * padded);
        for (int64_t c = 0; c < channels; c++) to[c] = last[c];
    }
}

template <class T, int I, int B>
inline void gradient_tile(const T* x, const T* dy, float* dw, int64_t x_row, int64_t x_unit, int64_t dy_row, int64_t dy_unit,
                          int64_t rows, int64_t units, int64_t padded, bool first) {
    constexpr int U = Unit<T>::numbers;
    __m512 acc[I][B];
    for (int i = 0; i < I; i++)
        for (int b = 0; b < B; b++) acc[i][b] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(dw + i * padded + b * 16);
    for (int64_t r = 0; r < rows; r++) {
        const T *px = x + r * x_row, *pd = dy + r * dy_row;
        for (int64_t u = 0; u < units; u++, px += x_unit, pd += dy_unit) {
            typename Unit<T>::vector d[B];
            for (int b = 0; b < B; b++) d[b] = Unit<T>::read(pd + b * 16 * U);
#pragma GCC unroll 8
            for (int i = 0; i < I; i++)
                for (int b = 0; b < B; b++) acc[i][b] = Unit<T>::add(acc[i][b], d[b], px + i * U);
        }
    }
    for (int i = 0; i < I; i++)
        for (int b = 0; b < B; b++) _mm512_storeu_ps(dw + i * padded + b * 16, acc[i][b]);
}

// dw float [lanes, taps, inputs, outputs padded to 16].
template <class T>
void conv_weight_gradient(const T* x, const T* dy, float* dw, int64_t lanes, int64_t per_lane, const Shape& s, int threads) {
    constexpr int U = Unit<T>::numbers;
    int64_t framed_height = (s.out_height - 1) * s.stride + s.kernel, framed_width = (s.out_width - 1) * s.stride + s.kernel;
    if (framed_height < s.padding + s.height) framed_height = s.padding + s.height;
    if (framed_width < s.padding + s.width) framed_width = s.padding + s.width;
    int64_t padded = up(s.outputs, 16), units = (s.out_width + U - 1) / U, taps = s.kernel * s.kernel;
    int64_t x_row = units * s.inputs * U, x_plane = framed_height * x_row, dy_row = units * padded * U;
#pragma omp parallel num_threads(threads)
    {
        T* framed = (T*)calloc(framed_height * framed_width * s.inputs + 64, sizeof(T));
        T* xi = (T*)calloc(s.kernel * x_plane + 64, sizeof(T));
        T* di = (T*)calloc(s.out_height * dy_row + 64, sizeof(T));
#pragma omp for schedule(static)
        for (int64_t lane = 0; lane < lanes; lane++)
            for (int64_t k = 0; k < per_lane; k++) {
                int64_t n = lane * per_lane + k;
                frame(x + n * s.height * s.width * s.inputs, framed, s.height, s.width, s.inputs, framed_width, s.padding,
                      int64_t(1));
                for (int64_t kx = 0; kx < s.kernel; kx++)
                    for (int64_t r = 0; r < framed_height; r++)
                        interleave(framed + (r * framed_width + kx) * s.inputs, xi + kx * x_plane + r * x_row, s.out_width,
                                   s.inputs, s.inputs, s.stride * s.inputs);
                for (int64_t r = 0; r < s.out_height; r++)
                    interleave(dy + (n * s.out_height + r) * s.out_width * s.outputs, di + r * dy_row, s.out_width,
                               s.outputs, padded, s.outputs);
                for (int64_t o = 0; o < padded; o += 32)
                    for (int64_t t = 0; t < taps; t++) {
                        const T* from = xi + t % s.kernel * x_plane + t / s.kernel * x_row;
                        float* to = dw + ((lane * taps + t) * s.inputs) * padded + o;
                        int64_t i = 0;
#define TILES(I)                                                                                                         \
    for (; i + I <= s.inputs; i += I)                                                                                    \
        if (o + 32 <= padded)                                                                                            \
            gradient_tile<T, I, 2>(from + i * U, di + o * U, to + i * padded, s.stride * x_row, s.inputs * U, dy_row,   \
                                   padded * U, s.out_height, units, padded, k == 0);                                    \
        else                                                                                                             \
            gradient_tile<T, I, 1>(from + i * U, di + o * U, to + i * padded, s.stride * x_row, s.inputs * U, dy_row,   \
                                   padded * U, s.out_height, units, padded, k == 0);
                        TILES(8) TILES(4) TILES(2) TILES(1)
#undef TILES
                    }
            }
        free(framed);
        free(xi);
        free(di);
    }
}
#endif

}  // namespace

extern "C" {

// Bit 0: float convolutions, bit 1: bfloat16 convolutions, bit 2: matrix units, which libraries use and this does not.
int capabilities() {
    int bits = 0;
#if defined(__AVX512F__)
    bits |= 1;
#endif
#if defined(__AVX512BF16__)
    bits |= 2;
#endif
#if defined(__AMX_BF16__)
    bits |= 4;
#endif
    return bits;
}

#define FOR_TYPE(T, NAME)                                                                                              \
    void group_norm_forward_##NAME(const T* x, const T* residual, T* y, const float* weight, const float* bias,       \
                                   float* stats, int64_t samples, int64_t per_lane, int64_t pixels, int64_t channels, \
                                   int64_t groups, int relu, float epsilon, int threads) {                            \
        with_widest<T>(channels, [&](auto norm) {                                                                     \
            norm.forward(x, residual, y, weight, bias, stats, samples, per_lane, pixels, channels, groups, relu,      \
                         epsilon, threads);                                                                           \
        });                                                                                                           \
    }                                                                                                                 \
    void group_norm_backward_##NAME(const T* dy, const T* x, const T* y, const float* stats, const float* weight,     \
                                    const float* bias, T* dx, T* dresidual, float* dweight, float* dbias,             \
                                    int64_t samples, int64_t per_lane, int64_t pixels, int64_t channels,              \
                                    int64_t groups, int relu, int threads) {                                          \
        with_widest<T>(channels, [&](auto norm) {                                                                     \
            norm.backward(dy, x, y, stats, weight, bias, dx, dresidual, dweight, dbias, samples, per_lane, pixels,    \
                          channels, groups, relu, threads);                                                           \
        });                                                                                                           \
    }                                                                                                                 \
    void filters_forward_##NAME(const float* weight, T* out, float* stats, int64_t rows, int64_t outputs,             \
                                int64_t lane_stride, int64_t inputs, int64_t padded, int64_t taps, int standardise,   \
                                int threads) {                                                                        \
        filters_forward<T>(weight, out, stats, rows, outputs, lane_stride, inputs, padded, taps, standardise,         \
                           threads);                                                                                  \
    }
FOR_TYPE(float, f32)
FOR_TYPE(bf16, bf16)

void filters_backward_f32(const float* gradient, const float* weight, const float* stats, float* out, int64_t rows,
                          int64_t outputs, int64_t weight_stride, int64_t out_stride, int64_t inputs, int64_t taps,
                          int64_t lane_stride, int64_t output_stride, int64_t tap_stride, int64_t input_stride,
                          int standardise, int threads) {
    filters_backward(gradient, weight, stats, out, rows, outputs, weight_stride, out_stride, inputs, taps, lane_stride,
                     output_stride, tap_stride, input_stride, standardise, threads);
}

void sgd_f32(float* weight, float* velocity, const float* gradient, const float* rates, const bool* answered,
             int64_t lanes, int64_t width, int64_t weight_stride, int64_t velocity_stride, float momentum, float decay,
             int threads) {
    sgd(weight, velocity, gradient, rates, answered, lanes, width, weight_stride, velocity_stride, momentum, decay,
        threads);
}

#if defined(__AVX512F__)
#define CONVOLUTION(T, NAME)                                                                                             \
    void conv_forward_##NAME(const T* x, const T* filters, const float* bias, T* y, int64_t samples, int64_t per_lane,  \
                             const int64_t* shape, int64_t spread, int turned, int relu, int threads) {                 \
        Shape s;                                                                                                        \
        memcpy(&s, shape, sizeof s);                                                                                    \
        conv_forward<T>(x, filters, bias, y, samples, per_lane, s, spread, turned, relu, threads);                     \
    }                                                                                                                   \
    void conv_weight_gradient_##NAME(const T* x, const T* dy, float* dw, int64_t lanes, int64_t per_lane,              \
                                     const int64_t* shape, int threads) {                                              \
        Shape s;                                                                                                        \
        memcpy(&s, shape, sizeof s);                                                                                    \
        conv_weight_gradient<T>(x, dy, dw, lanes, per_lane, s, threads);                                               \
    }
CONVOLUTION(float, f32)
#if defined(__AVX512BF16__)
CONVOLUTION(bf16, bf16)
#endif
#endif
}
