// Reductions over a workgroup of 256, by a tree of fixed shape; every invocation gets the result.
shared float row_values[256];

float row_sum(float value) {
    uint lane = gl_LocalInvocationIndex;
    barrier(); // a reduction before may still be read
    row_values[lane] = value;
    barrier();
    for (uint half_way = 128u; half_way >= 1u; half_way >>= 1) {
        if (lane < half_way) row_values[lane] += row_values[lane + half_way];
        barrier();
    }
    return row_values[0];
}

float row_maximum(float value) {
    uint lane = gl_LocalInvocationIndex;
    barrier();
    row_values[lane] = value;
    barrier();
    for (uint half_way = 128u; half_way >= 1u; half_way >>= 1) {
        if (lane < half_way) row_values[lane] = max(row_values[lane], row_values[lane + half_way]);
        barrier();
    }
    return row_values[0];
}
