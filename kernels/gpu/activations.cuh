// Activations and their derivatives, of floats. Far from 0 they are 0 and x, and NaN stays NaN; nothing overflows.
//
//     gelu(x)      = x Phi(x)             = max(x, 0) - y Phi(-y),  y = |x|
//     gelu_tanh(x) = x sigmoid(u),        u = 2 sqrt(2 / pi) (x + 0.044715 x^3), which is (1 + tanh(u / 2)) / 2
//     silu(x)      = x sigmoid(x)
//
// Phi(-y) = 2^Q(y): the logarithm of the normal distribution's tail is nearly a parabola, so one polynomial of degree
// 11 serves all y, without a branch or a division, and the left tail keeps its digits. The coefficients are those of
// kernels/gelu/cpu.py, which says how they were fitted.
#pragma once
#include "common.cuh"

DEVICE float at_most(float x, float limit) { return x > limit ? limit : x; }    // NaN stays, as it
DEVICE float at_least(float x, float limit) { return x < limit ? limit : x; }   // does not in fmaxf
DEVICE float relu(float x) { return at_least(x, 0.0f); }

DEVICE float normal_tail(float y) {   // Phi(-y), 0 <= y <= 15
    float q = fmaf(3.6232714e-10f, y, -1.9671679e-8f);
    q = fmaf(q, y, 4.52997313e-7f);
    q = fmaf(q, y, -5.72928275e-6f);
    q = fmaf(q, y, 4.18941308e-5f);
    q = fmaf(q, y, -1.47429004e-4f);
    q = fmaf(q, y, -3.02683329e-4f);
    q = fmaf(q, y, 7.35380594e-3f);
    q = fmaf(q, y, -5.27417548e-2f);
    q = fmaf(q, y, -0.459115476f);
    q = fmaf(q, y, -1.15111649f);
    return exp2f(fmaf(q, y, -1.0f));
}

DEVICE float gelu(float x) {
    float y = at_most(fabsf(x), 15.0f);                   // Phi(-15) is 0 in float
    return fmaf(-y, normal_tail(y), relu(x));
}
// d/dx = d where x < 0, else 1 - d;  d = Phi(-y) - y Phi'(y)
DEVICE float gelu_slope(float x) {
    float y = at_most(fabsf(x), 15.0f);
    float density = 0.398942280f * exp2f(y * y * -0.721347520f);          // exp(-y^2 / 2) / sqrt(2 pi)
    float d = fmaf(-y, density, normal_tail(y));
    return x < 0.0f ? d : 1.0f - d;
}

constexpr float TANH_LINEAR = 1.59576912f, TANH_CUBIC = 0.0713548163f;     // u = x (TANH_LINEAR + TANH_CUBIC x^2)

DEVICE float gelu_tanh(float x) {
    float c = at_least(x, -20.0f);
    return c / (expf(-c * fmaf(c * c, TANH_CUBIC, TANH_LINEAR)) + 1.0f);
}
// phi + x phi (1 - phi) u',  phi = sigmoid(u)
DEVICE float gelu_tanh_slope(float x) {
    float c = at_most(at_least(x, -20.0f), 20.0f), square = c * c;
    float phi = 1.0f / (expf(-c * fmaf(square, TANH_CUBIC, TANH_LINEAR)) + 1.0f);
    return fmaf(c, phi * (1.0f - phi) * fmaf(square, 3.0f * TANH_CUBIC, TANH_LINEAR), phi);
}

DEVICE float sigmoid(float x) {
    float e = expf(-fabsf(x));                            // at most 1
    return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}
DEVICE float silu(float x) { return at_least(x, -1000.0f) * sigmoid(x); }
// s (1 + x (1 - s)),  s = sigmoid(x)
DEVICE float silu_slope(float x) {
    x = at_most(at_least(x, -1000.0f), 1000.0f);
    float e = expf(-fabsf(x)), share = 1.0f / (1.0f + e);
    float s = x < 0.0f ? share * e : share, rest = x < 0.0f ? share : share * e;           // s and 1 - s
    return fmaf(s * x, rest, s);
}
