#include "html_report.h"

#include "file.h"
#include "report.h"

#include <algorithm>
#include <cmath>

namespace finetune {
namespace {

const char *const style =
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}"
    "h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}svg{width:100%;height:auto}"
    "table{border-collapse:collapse}td,th{padding:.15rem .8rem .15rem 0;text-align:left;vertical-align:top}"
    "th{font-weight:600}pre{white-space:pre-wrap;margin:0;font:13px/1.4 ui-monospace,monospace}"
    ".raw{stroke:#b9cfe4;stroke-width:1}.average{stroke:#1f6fb2;stroke-width:2}.validation{stroke:#c2571a;stroke-width:2}"
    ".frame{stroke:#ccc;stroke-width:1}polyline,path{fill:none}text{font-size:12px;fill:#555}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}text{fill:#aaa}.frame{stroke:#444}.raw{stroke:#35506b}}";

// For text and for attributes in double quotes. Control bytes and what is no UTF-8 become a replacement character.
std::string escaped(const std::string &text) {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
        const unsigned char byte = static_cast<unsigned char>(text[i]);
        const size_t length = byte < 0x80 ? 1 : byte >= 0xc2 && byte < 0xe0 ? 2 : byte >= 0xe0 && byte < 0xf0 ? 3 : byte >= 0xf0 && byte < 0xf5 ? 4 : 0;
        bool whole = length > 0 && i + length <= text.size();
        for (size_t k = 1; whole && k < length; ++k) whole = (text[i + k] & 0xc0) == 0x80;
        if (!whole || (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f) out += "&#xfffd;";
        else if (byte == '<') out += "&lt;";
        else if (byte == '>') out += "&gt;";
        else if (byte == '&') out += "&amp;";
        else if (byte == '"') out += "&quot;";
        else if (byte == '\'') out += "&#39;";
        else {
            out.append(text, i, length);
            i += length - 1;
        }
    }
    return out;
}

struct Curve {
    const char *name, *kind;
    std::vector<std::pair<double, double>> points; // step, value; rising in steps
};

// The points of `key`, of those records that have it as a finite number.
Curve curve_of(const std::vector<Json> &records, const char *name, const char *kind, const char *key) {
    Curve curve = {name, kind, {}};
    for (const Json &record : records) {
        const auto found = record.find(key);
        if (found == record.end() || !found->is_number()) continue;
        const double value = found->get<double>();
        if (std::isfinite(value)) curve.points.emplace_back(record["step"].get<double>(), value);
    }
    return curve;
}

std::string number(double value) {
    char text[32];
    snprintf(text, sizeof text, "%.4g", value);
    return text;
}

// Curves over the steps in one frame, with the least and the largest values written at its corners.
std::string chart(const std::vector<Curve> &curves) {
    const double width = 900, height = 280, left = 60, right = 20, top = 30, bottom = 25;
    const size_t most_points = 1500; // more would not be seen
    double first = INFINITY, last = -INFINITY, low = INFINITY, high = -INFINITY;
    for (const Curve &curve : curves)
        for (const auto &[step, value] : curve.points) {
            first = std::min(first, step);
            last = std::max(last, step);
            low = std::min(low, value);
            high = std::max(high, value);
        }
    if (!(first <= last)) return "<p>Nothing yet.</p>\n";
    const double steps = std::max(last - first, 1.0), span = high > low ? high - low : std::max(std::fabs(high), 1e-9);
    const auto x = [&](double step) { return number(left + (step - first) / steps * (width - left - right)); };
    const auto y = [&](double value) { return number(top + (high - value) / span * (height - top - bottom)); };
    std::ostringstream out;
    out << "<svg viewBox=\"0 0 " << width << ' ' << height << "\" role=\"img\">\n<path class=\"frame\" d=\"M" << left << ' ' << top << " V"
        << height - bottom << " H" << width - right << "\"/>\n<text x=\"" << left - 6 << "\" y=\"" << top + 10
        << "\" text-anchor=\"end\">" << number(high) << "</text><text x=\"" << left - 6 << "\" y=\"" << height - bottom
        << "\" text-anchor=\"end\">" << number(low) << "</text><text x=\"" << left << "\" y=\"" << height - 6 << "\">step "
        << uint64_t(first) << "</text><text x=\"" << width - right << "\" y=\"" << height - 6 << "\" text-anchor=\"end\">"
        << uint64_t(last) << "</text>\n";
    double label = left; // the curves' names, above the frame
    for (const Curve &curve : curves) {
        if (curve.points.empty()) continue;
        out << "<polyline class=\"" << curve.kind << "\" points=\"";
        const size_t stride = (curve.points.size() + most_points - 1) / most_points;
        for (size_t i = 0; i < curve.points.size(); i += stride) out << x(curve.points[i].first) << ',' << y(curve.points[i].second) << ' ';
        if ((curve.points.size() - 1) % stride != 0) out << x(curve.points.back().first) << ',' << y(curve.points.back().second);
        out << "\"/>\n<polyline class=\"" << curve.kind << "\" points=\"" << label << ",12 " << label + 24 << ",12"
            << "\"/><text x=\"" << label + 30 << "\" y=\"16\">" << curve.name << "</text>\n";
        label += 60 + 8 * double(std::string(curve.name).size());
    }
    out << "</svg>\n";
    return out.str();
}

std::string row(const std::string &name, const std::string &value) {
    return "<tr><th>" + escaped(name) + "</th><td>" + escaped(value) + "</td></tr>\n";
}

std::string summary(const std::vector<Json> &records, const Curve &average, const Curve &validation) {
    std::string rows;
    for (auto record = records.rbegin(); record != records.rend(); ++record) {
        if (!record->contains("loss")) continue;
        rows += row("Steps", std::to_string((*record)["step"].get<uint64_t>()));
        rows += row("Tokens", readable_count(record->value("tokens", uint64_t(0))));
        rows += row("Time", readable_time(record->value("seconds", 0.0)));
        break;
    }
    if (!average.points.empty()) rows += row("Training loss, moving average", four_digits(average.points.back().second));
    if (!validation.points.empty()) {
        const auto best = std::min_element(validation.points.begin(), validation.points.end(), [](const auto &a, const auto &b) { return a.second < b.second; });
        rows += row("Validation loss, first and last", four_digits(validation.points.front().second) + " and " + four_digits(validation.points.back().second));
        rows += row("Validation loss, best", four_digits(best->second) + " at step " + std::to_string(uint64_t(best->first)));
    }
    return "<table>\n" + rows + "</table>\n";
}

std::string flags(const std::string &path) {
    if (!exists(path)) return "";
    const MappedFile file(path);
    std::istringstream lines{std::string(file.text())};
    std::string rows, line;
    while (std::getline(lines, line)) {
        const size_t equals = line.find(" = ");
        if (line.empty() || line[0] == '#' || equals == std::string::npos) continue;
        rows += row(line.substr(0, equals), line.substr(equals + 3));
    }
    return "<h2>Flags</h2>\n<table>\n" + rows + "</table>\n";
}

} // namespace

void write_report(const RunFolder &folder, const std::vector<Sample> &samples) {
    const std::vector<Json> records = folder.records();
    const Curve raw = curve_of(records, "training loss", "raw", "loss"), average = curve_of(records, "moving average", "average", "average"),
                validation = curve_of(records, "validation loss", "validation", "validation_loss");
    std::string page = "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><meta name=\"viewport\" "
                       "content=\"width=device-width\"><title>" + escaped(folder.path()) + "</title>\n<style>" + style +
                       "</style></head>\n<body>\n<h1>" + escaped(folder.path()) + "</h1>\n";
    page += summary(records, average, validation);
    page += "<h2>Loss</h2>\n" + chart({raw, average, validation});
    page += "<h2>Learning rate</h2>\n" + chart({curve_of(records, "learning rate", "average", "learning_rate")});
    page += "<h2>Gradient norm</h2>\n" + chart({curve_of(records, "before clipping", "average", "gradient_norm")});
    if (!samples.empty()) page += "<h2>Samples</h2>\n";
    for (const Sample &sample : samples) {
        page += "<table>\n";
        for (const auto &[name, text] : {std::pair<const char *, const std::string &>("Prompt", sample.prompt),
                                         {"Expected", sample.expected},
                                         {"Base", sample.before},
                                         {"Tuned", sample.after}})
            page += std::string("<tr><th>") + name + "</th><td><pre>" + escaped(text) + "</pre></td></tr>\n";
        page += "</table>\n<hr>\n";
    }
    page += flags(folder.file("config.toml")) + "</body>\n</html>\n";
    write_text(folder.file("report.html"), page);
}

} // namespace finetune
