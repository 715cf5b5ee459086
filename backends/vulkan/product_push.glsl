// Push constants of the products, as struct ProductPush in product_vulkan.h.
QLORA_PUSH
    uint m_count, n_count, k_count; // y[m][n], k summed over
    uint x_stride, w_stride, y_stride, x_begin, y_begin, rank, b_stride, tiles_m;
    float alpha, beta, xa_scale;
    uint w_factor; // of the scales of NVFP4, as bits
};
