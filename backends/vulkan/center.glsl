// x less its row's mean, which comes in two parts, {mean nearly, what is left}: bits of x must not drown in a large mean.
float centered(float x, vec2 center) {
    precise float near = x - center.x;
    precise float value = near - center.y;
    return value;
}
