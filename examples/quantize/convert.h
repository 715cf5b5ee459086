// Values on their way from one format to another, through the library, and what the way cost them.
#pragma once

#include "calibrate.h"
#include "importance.h"
#include "plan.h"

namespace quantize {

struct Quality {
    double error = 0;   // mean square
    double signal = 0;  // mean square of the values themselves
    double largest = 0; // absolute error

    double decibels() const; // of signal over error; infinite when there is none
};

class Converter {
public:
    Converter(const Source &source, const Command &command, const Importance &importance);

    // Weights that calibration has made already; they must live as long as the object.
    void take(const HostWeights *ready) { ready_ = ready; }
    Device &own_device() { return device_; }
    // The weight in the chosen format. Errors are measured against the values that the source stands for.
    qlora::Weight convert(const Choice &choice, Quality *quality);
    const std::string &device() const { return device_.name(); }

private:
    std::vector<float> decode(const qlora::Weight &weight);
    void quantize(const Choice &choice, const std::vector<float> &values, const qlora::Weight &weight);
    Quality compare(const Choice &choice, const std::vector<float> &before, const std::vector<float> &after) const;

    const Source &source_;
    const Command &command_;
    const Importance &importance_;
    const HostWeights *ready_ = nullptr;
    Device device_;
};

} // namespace quantize
