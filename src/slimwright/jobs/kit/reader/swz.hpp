// Reads packed nets (.swz), and puts their weights into a skeleton: the result is a runtime's file, bit by bit.
//
// C++17 and its standard library. Files are untrusted input: whatever is wrong with one is a swz::Error. Everything
// that a probability follows from is a whole number, so every machine reads the same weights.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace swz {

using Bytes = std::vector<std::uint8_t>;

// What is wrong with a file.
struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// A tensor: its shape, its numbers one behind the other with the lowest byte first, and where its form has them, the
// whole numbers behind the floats.
struct Tensor {
    unsigned dtype = 0;  // a place in the table of dtypes
    std::vector<std::uint64_t> shape;
    Bytes bytes;
    std::vector<std::int32_t> numbers;
};

namespace detail {

constexpr std::uint64_t most_number = std::uint64_t{1} << 62;
constexpr unsigned most_rank = 8;
constexpr std::uint64_t most_hashed = (std::uint64_t{1} << 31) - 1;  // values, or a seed

// Bytes that are taken from the front. Each claim is compared with what is left.
class Reader {
public:
    Reader(const std::uint8_t* data, std::size_t size) : at_(data), end_(data + size) {}

    std::size_t left() const { return static_cast<std::size_t>(end_ - at_); }

    const std::uint8_t* take(std::uint64_t count) {
        if (count > left()) throw Error("a part is longer than what is left");
        const std::uint8_t* found = at_;
        at_ += count;
        return found;
    }

    Reader part(std::uint64_t count) {
        const std::uint8_t* found = take(count);
        return Reader(found, static_cast<std::size_t>(count));
    }

    unsigned byte() { return *take(1); }

    std::uint32_t word() {
        const std::uint8_t* found = take(4);
        return found[0] | std::uint32_t{found[1]} << 8 | std::uint32_t{found[2]} << 16 | std::uint32_t{found[3]} << 24;
    }

    std::uint64_t varint(std::uint64_t most = most_number) {
        std::uint64_t number = 0;
        for (unsigned place = 0; place < 9; ++place) {
            const unsigned part = byte();
            number |= std::uint64_t{part & 0x7F} << (7 * place);
            if (part < 0x80) {
                if (number > most) throw Error("a number is larger than it can be");
                return number;
            }
        }
        throw Error("a whole number has more than nine bytes");
    }

    const std::uint8_t* here() const { return at_; }

private:
    const std::uint8_t* at_;
    const std::uint8_t* end_;
};

inline std::uint32_t crc32(const std::uint8_t* data, std::size_t size) {
    static const auto table = [] {
        std::array<std::uint32_t, 256> made{};
        for (std::uint32_t number = 0; number < 256; ++number) {
            std::uint32_t rest = number;
            for (int bit = 0; bit < 8; ++bit) rest = rest & 1 ? 0xEDB88320U ^ (rest >> 1) : rest >> 1;
            made[number] = rest;
        }
        return made;
    }();
    std::uint32_t sum = 0xFFFFFFFFU;
    for (std::size_t at = 0; at < size; ++at) sum = table[(sum ^ data[at]) & 0xFF] ^ (sum >> 8);
    return ~sum;
}

// SHA-256 (FIPS 180-4).
inline std::array<std::uint8_t, 32> sha256(const Bytes& data) {
    static constexpr std::array<std::uint32_t, 64> rounds{
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
    std::array<std::uint32_t, 8> state{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                       0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    const auto turned = [](std::uint32_t word, int by) { return word >> by | word << (32 - by); };
    const auto block = [&](const std::uint8_t* octets) {
        std::array<std::uint32_t, 64> w;
        for (std::size_t i = 0; i < 16; ++i) {
            w[i] = std::uint32_t{octets[4 * i]} << 24 | std::uint32_t{octets[4 * i + 1]} << 16 |
                   std::uint32_t{octets[4 * i + 2]} << 8 | octets[4 * i + 3];
        }
        for (std::size_t i = 16; i < 64; ++i) {
            const std::uint32_t low = turned(w[i - 15], 7) ^ turned(w[i - 15], 18) ^ w[i - 15] >> 3;
            const std::uint32_t high = turned(w[i - 2], 17) ^ turned(w[i - 2], 19) ^ w[i - 2] >> 10;
            w[i] = w[i - 16] + low + w[i - 7] + high;
        }
        auto [a, b, c, d, e, f, g, h] = state;
        for (std::size_t i = 0; i < 64; ++i) {
            const std::uint32_t one =
                h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + ((e & f) ^ (~e & g)) + rounds[i] + w[i];
            const std::uint32_t two = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
            h = g, g = f, f = e, e = d + one, d = c, c = b, b = a, a = one + two;
        }
        state = {state[0] + a, state[1] + b, state[2] + c, state[3] + d,
                 state[4] + e, state[5] + f, state[6] + g, state[7] + h};
    };
    const std::size_t whole = data.size() / 64 * 64;
    for (std::size_t at = 0; at < whole; at += 64) block(data.data() + at);
    std::array<std::uint8_t, 128> last{};
    const std::size_t rest = data.size() - whole, ends = rest < 56 ? 64 : 128;
    if (rest) std::memcpy(last.data(), data.data() + whole, rest);
    last[rest] = 0x80;
    for (std::size_t place = 0; place < 8; ++place) {
        last[ends - 1 - place] = static_cast<std::uint8_t>(std::uint64_t{data.size()} * 8 >> (8 * place));
    }
    for (std::size_t at = 0; at < ends; at += 64) block(last.data() + at);
    std::array<std::uint8_t, 32> made;
    for (std::size_t i = 0; i < 32; ++i) made[i] = static_cast<std::uint8_t>(state[i / 4] >> (24 - 8 * (i % 4)));
    return made;
}

inline unsigned bit_length(std::uint64_t number) {
    unsigned bits = 0;
    for (; number; number >>= 1) ++bits;
    return bits;
}

// floor(16 log2 k) for k from 0 to 2^16, with 0 for 0: the least k with k^16 >= 2^s has the logarithm s. Such a k is
// found in words of 32 bits, because k^16 has up to 256.
class Logs {
public:
    static constexpr std::uint32_t most = 1U << 16;

    static const std::vector<std::int32_t>& table() {
        static const std::vector<std::int32_t> made = [] {
            std::vector<std::int32_t> found(most + 1, 0);
            std::uint32_t start = 1;
            for (unsigned step = 1; step <= 16 * 17; ++step) {
                const std::uint32_t next = root_above(step);
                for (std::uint32_t k = start; k < next && k <= most; ++k) {
                    found[k] = static_cast<std::int32_t>(step - 1);
                }
                start = next;
            }
            return found;
        }();
        return made;
    }

    // The least k with k^16 >= 2^step.
    static std::uint32_t root_above(unsigned step) {
        std::uint32_t low = 1, high = std::uint32_t{2} << (step / 16);
        while (low < high) {
            const std::uint32_t middle = low + (high - low) / 2;
            if (power_reaches(middle, step)) high = middle; else low = middle + 1;
        }
        return low;
    }

private:
    static bool power_reaches(std::uint32_t k, unsigned step) {
        std::array<std::uint32_t, 17> power{};  // the lowest word first
        power[0] = 1;
        for (int times = 0; times < 16; ++times) {
            std::uint64_t carry = 0;
            for (std::uint32_t& word : power) {
                carry += std::uint64_t{word} * k;
                word = static_cast<std::uint32_t>(carry);
                carry >>= 32;
            }
        }
        for (std::size_t place = power.size(); place-- > 0;) {
            if (power[place]) return 32 * place + bit_length(power[place]) > step;
        }
        return false;
    }
};

// The range coder of constriction (Bamler 2022, arXiv 2201.01741): states of 64 bits, words of 32, precision 24.
class RangeDecoder {
public:
    static constexpr std::uint32_t one = 1U << 16;  // what the parts of a distribution sum to

    explicit RangeDecoder(Reader source) : at_(source.here()), left_(source.left()) {
        point_ = std::uint64_t{next()} << 32;
        point_ |= next();
    }

    // The limit from where a number is 1, for `part` of 2^16 that it is.
    static std::uint32_t limit_of(std::uint32_t part) {
        return static_cast<std::uint32_t>((std::uint64_t{one - part} * (full - 2)) >> 16) + 1;
    }

    unsigned flag(std::uint32_t limit) {
        const std::uint64_t scale = range_ >> 24, place = point_ - lower_;
        if (place >= scale << 24) wrong();
        const std::uint64_t split = scale * limit;
        const bool found = place >= split;
        narrow(found ? split : 0, found ? (scale << 24) - split : split);
        return found;
    }

    // A number evenly from 0 to below `size`, which is from 2 to 2^24.
    std::uint32_t number(std::uint32_t size) {
        const std::uint64_t scale = range_ >> 24, quantile = (point_ - lower_) / scale;
        if (quantile >= full) wrong();
        const std::uint32_t each = full / size;
        const std::uint32_t found = std::min(static_cast<std::uint32_t>(quantile) / each, size - 1);
        const std::uint32_t left = found * each;
        narrow(scale * left, scale * (found < size - 1 ? each : full - left));
        return found;
    }

    // `count` symbols that are distributed as counts [symbols] say; `each` is called with them in their order.
    template <class Each>
    void symbols(const std::vector<std::int64_t>& counts, std::size_t count, Each each) {
        if (counts.size() < 2) {
            for (std::size_t done = 0; done < count; ++done) each(std::size_t{0});
            return;
        }
        const std::vector<std::uint32_t> ends = cumulated(counts);
        std::array<std::uint16_t, 257> first{};  // the symbol of the first quantile whose eight high bits are these
        std::size_t symbol = 0;
        for (std::uint32_t high = 0; high < 256; ++high) {
            while (ends[symbol + 1] <= high << 16) ++symbol;
            first[high] = static_cast<std::uint16_t>(symbol);
        }
        for (std::size_t done = 0; done < count; ++done) {
            const std::uint64_t scale = range_ >> 24, quantile = (point_ - lower_) / scale;
            if (quantile >= full) wrong();
            std::size_t found = first[quantile >> 16];
            while (ends[found + 1] <= quantile) ++found;
            narrow(scale * ends[found], scale * (ends[found + 1] - ends[found]));
            each(found);
        }
    }

private:
    static constexpr std::uint32_t full = 1U << 24;

    // Where each symbol begins [symbols + 1] in 2^24, from counts above zero.
    static std::vector<std::uint32_t> cumulated(const std::vector<std::int64_t>& counts) {
        const std::size_t kinds = counts.size();
        std::int64_t total = 0, sum = 0;
        for (const std::int64_t count : counts) total += count;
        std::vector<std::int64_t> parts(kinds);
        for (std::size_t kind = 0; kind < kinds; ++kind) {
            parts[kind] = 1 + counts[kind] * static_cast<std::int64_t>(one - kinds) / total;
            sum += parts[kind];
        }
        parts[static_cast<std::size_t>(std::max_element(counts.begin(), counts.end()) - counts.begin())] += one - sum;
        std::vector<std::uint32_t> ends(kinds + 1, full);
        std::uint64_t before = 0;
        for (std::size_t kind = 0; kind < kinds; ++kind) {
            ends[kind] = static_cast<std::uint32_t>((before * (full - kinds)) >> 16) + static_cast<std::uint32_t>(kind);
            before += static_cast<std::uint64_t>(parts[kind]);
        }
        return ends;
    }

    [[noreturn]] static void wrong() { throw Error("its entropy-coded bytes are none that an encoder writes"); }

    void narrow(std::uint64_t from, std::uint64_t range) {
        lower_ += from;
        range_ = range;
        if (range_ >> 32) return;
        lower_ <<= 32;
        range_ <<= 32;
        point_ = point_ << 32 | next();
    }

    std::uint32_t next() {  // bytes beyond the end are zeros
        std::uint32_t word = 0;
        for (unsigned place = 0; place < 4 && left_; ++place, --left_) word |= std::uint32_t{*at_++} << (8 * place);
        return word;
    }

    const std::uint8_t* at_;
    std::size_t left_;
    std::uint64_t lower_ = 0, range_ = ~std::uint64_t{0}, point_ = 0;
};

// Bytes of numbers, plane by plane: words [count] of `size` bytes each; `floats` says that they are floats' bits.
inline std::vector<std::uint64_t> planes(Reader source, unsigned size, std::size_t count, bool floats) {
    std::vector<std::uint64_t> words(count, 0);
    for (unsigned place = 0; place < size; ++place) {
        const unsigned shift = 8 * (size - 1 - place), how = source.byte();
        if (how == 0) {
            const std::uint8_t* octets = source.take(count);
            for (std::size_t at = 0; at < count; ++at) words[at] |= std::uint64_t{octets[at]} << shift;
        } else if (how == 1) {
            const std::uint64_t all = std::uint64_t{source.byte()} << shift;
            for (std::uint64_t& word : words) word |= all;
        } else if (how == 2) {
            const unsigned low = source.byte(), high = source.byte();
            if (low >= high) throw Error("bytes from a high to a low one are claimed");
            RangeDecoder coder(source.part(source.varint()));
            std::vector<std::int64_t> seen(high - low + 1, 1), more(seen.size(), 0);
            std::size_t length = 128;
            for (std::size_t start = 0; start < count; length = std::min<std::size_t>(2 * length, 65536)) {
                const std::size_t some = std::min(length, count - start);
                coder.symbols(seen, some, [&](std::size_t symbol) {
                    words[start++] |= std::uint64_t{low + symbol} << shift;
                    more[symbol] += 16;
                });
                for (std::size_t symbol = 0; symbol < seen.size(); ++symbol) {
                    seen[symbol] += std::exchange(more[symbol], 0);
                }
            }
        } else {
            throw Error("it does not say how its bytes are stored");
        }
    }
    if (floats) {
        for (std::uint64_t& word : words) word = word >> 1 | (word & 1) << (8 * size - 1);
    }
    return words;
}

// The numbers of a matrix that are not zero: signs and magnitudes, by what those of their row and column were so far.
class Magnitudes {
public:
    Magnitudes(RangeDecoder& coder, std::size_t columns, std::size_t largest)
        : coder_(coder), kinds_(columns), sums_(columns, 0), counts_(columns, 0), tokens_(contexts) {
        for (auto& counts : tokens_) counts.assign(largest + 1, 0);
    }

    // Read the numbers of a matrix [rows, columns] wherever it is not zero.
    void read(std::vector<std::int32_t>& matrix, const std::vector<std::uint8_t>& rows) {
        const std::size_t columns = sums_.size();
        std::vector<std::size_t> places;
        for (std::size_t at = 0; at < matrix.size(); ++at) {
            if (matrix[at]) places.push_back(at);
        }
        std::vector<std::size_t> own(std::min<std::size_t>(places.size(), 32768));
        std::vector<std::uint8_t> row_kinds(own.size());
        for (std::size_t start = 0; start < places.size();) {
            const std::size_t most = std::min<std::size_t>(std::max<std::size_t>(start / 2, 48), 32768);
            const std::size_t some = std::min(most, places.size() - start);
            for (std::size_t i = 0; i < some; ++i) {
                const std::size_t row = places[start + i] / columns;
                own[i] = places[start + i] - row * columns;
                row_kinds[i] = rows[row];
            }
            batch(matrix, &places[start], own, row_kinds, some);
            start += some;
        }
    }

private:
    static constexpr std::size_t contexts = 12, direct = 64;

    void batch(std::vector<std::int32_t>& matrix, const std::size_t* places, const std::vector<std::size_t>& columns,
               const std::vector<std::uint8_t>& row_kinds, std::size_t some) {
        std::vector<std::uint8_t> negative;
        negative.reserve(some);
        coder_.symbols(signs_, some, [&](std::size_t sign) { negative.push_back(static_cast<std::uint8_t>(sign)); });
        for (const std::uint8_t sign : negative) ++signs_[sign];
        std::vector<std::int32_t> values = tokens(columns, row_kinds, some);
        if (tokens_[0].size() > direct) {
            for (std::int32_t& value : values) {
                if (value < static_cast<std::int32_t>(direct)) continue;
                const std::uint32_t above = static_cast<std::uint32_t>(value) - std::uint32_t{direct};
                const std::uint32_t bits = above / 4 + 4;
                value = static_cast<std::int32_t>((4 + above % 4) << bits | coder_.number(std::uint32_t{1} << bits));
            }
        }
        for (std::size_t i = 0; i < some; ++i) {
            sums_[columns[i]] += std::min(values[i], 4096);
            ++counts_[columns[i]];
            matrix[places[i]] = negative[i] ? -1 - values[i] : 1 + values[i];
        }
    }

    std::vector<std::int32_t> tokens(const std::vector<std::size_t>& columns,
                                     const std::vector<std::uint8_t>& row_kinds, std::size_t some) {
        std::vector<std::int32_t> read(some, 0);
        const std::size_t size = tokens_[0].size();
        if (size < 2) return read;
        set_kinds();
        std::array<std::vector<std::size_t>, contexts> order;
        for (std::size_t i = 0; i < some; ++i) order[kinds_[columns[i]] * 3 + row_kinds[i]].push_back(i);
        std::vector<std::int64_t> usual(size, 0), counts(size);
        std::int64_t every = 0;
        for (const auto& one : tokens_) {
            for (std::size_t token = 0; token < size; ++token) usual[token] += one[token], every += one[token];
        }
        for (std::int64_t& count : usual) count = 1 + 32 * 12 * count / std::max<std::int64_t>(every, 1);
        for (std::size_t kind = 0; kind < contexts; ++kind) {
            if (order[kind].empty()) continue;
            for (std::size_t token = 0; token < size; ++token) counts[token] = usual[token] + 32 * tokens_[kind][token];
            std::size_t at = 0;
            coder_.symbols(counts, order[kind].size(), [&](std::size_t token) {
                read[order[kind][at++]] = static_cast<std::int32_t>(token);
                ++tokens_[kind][token];
            });
        }
        return read;
    }

    // Whether the magnitudes of a column were small so far, as usual, or large: 0 to 3.
    void set_kinds() {
        std::int64_t sum = 0, count = 0;
        for (std::size_t column = 0; column < sums_.size(); ++column) sum += sums_[column], count += counts_[column];
        const std::int64_t usual = 4 * sum / std::max<std::int64_t>(count, 1);
        for (std::size_t column = 0; column < sums_.size(); ++column) {
            const std::int64_t mean = (4 * sums_[column] + 2 * usual) / (counts_[column] + 2);
            const int kind = (mean > usual * 3 / 4) + (mean > usual) + (mean > usual * 5 / 4);
            kinds_[column] = static_cast<std::uint8_t>(kind);
        }
    }

    RangeDecoder& coder_;
    std::vector<std::uint8_t> kinds_;
    std::vector<std::int64_t> sums_, counts_;
    std::vector<std::int64_t> signs_{8, 8};
    std::vector<std::vector<std::int64_t>> tokens_;
};

// Whole numbers of a matrix by context: first which are zero, then those that are not.
class Matrix {
public:
    // The numbers [n] of a tensor of this shape, which has at least one.
    static std::vector<std::int32_t> read(Reader source, const std::vector<std::uint64_t>& shape) {
        const unsigned flags = source.byte();
        if (flags > 3) throw Error("the way of its numbers is unknown");
        const bool turned = flags & 1, by_row = flags & 2;
        std::size_t rows = shape.empty() ? 1 : static_cast<std::size_t>(shape[0]), columns = 1, taps = 1;
        for (std::size_t axis = 1; axis < shape.size(); ++axis) columns *= static_cast<std::size_t>(shape[axis]);
        for (std::size_t axis = 2; axis < shape.size(); ++axis) taps *= static_cast<std::size_t>(shape[axis]);
        if (turned) std::swap(rows, columns), taps = 1;
        const std::vector<std::size_t> alive_rows = alive(source, rows), alive_columns = alive(source, columns);
        std::vector<std::int32_t> found(rows * columns, 0);
        if (alive_rows.empty()) return found;
        Matrix inner(alive_rows, alive_columns.size(), whole(alive_columns, taps) ? taps : 1);
        inner.distance_ = static_cast<std::size_t>(source.varint(64));
        if (alive_columns.empty()) return found;
        const std::uint64_t nonzero = source.varint(alive_rows.size() * alive_columns.size());
        const std::size_t largest = static_cast<std::size_t>(source.varint(132));
        RangeDecoder coder(source.part(source.left()));
        const std::vector<std::int32_t> read = inner.walked(coder, nonzero, largest, by_row);
        std::size_t at = 0;
        for (const std::size_t row : alive_rows) {
            for (const std::size_t column : alive_columns) {
                found[turned ? column * rows + row : row * columns + column] = read[at++];
            }
        }
        return found;
    }

private:
    static constexpr std::int64_t unit = 32, prior = 4;
    static constexpr std::size_t near = 16, levels = 40;

    Matrix(const std::vector<std::size_t>& places, std::size_t columns, std::size_t taps)
        : places_(places), rows_(places.size()), columns_(columns), taps_(taps) {}

    // The places of rows or columns that are not all zero.
    static std::vector<std::size_t> alive(Reader& source, std::size_t count) {
        std::vector<std::size_t> found;
        const unsigned how = source.byte();
        if (how == 0) {
            found.resize(count);
            for (std::size_t at = 0; at < count; ++at) found[at] = at;
        } else if (how == 1) {
            const std::uint8_t* bits = source.take(count / 8 + (count % 8 != 0));
            for (std::size_t at = 0; at < count; ++at) {
                if (bits[at / 8] >> (at % 8) & 1) found.push_back(at);
            }
        } else if (how == 2) {
            const auto some = static_cast<std::int64_t>(source.varint(count));
            RangeDecoder coder(source.part(source.varint()));
            std::size_t at = 0;
            coder.symbols({static_cast<std::int64_t>(count) - some + 1, some + 1}, count, [&](std::size_t flag) {
                if (flag) found.push_back(at);
                ++at;
            });
        } else {
            throw Error("it does not say which of its rows are zero");
        }
        return found;
    }

    // Whether columns belong together in `taps`: none of theirs is missing.
    static bool whole(const std::vector<std::size_t>& columns, std::size_t taps) {
        if (columns.size() % taps) return false;
        for (std::size_t at = 0; at < columns.size(); at += taps) {
            if (columns[at] % taps || columns[at + taps - 1] != columns[at] + taps - 1) return false;
        }
        return true;
    }

    std::vector<std::int32_t> walked(RangeDecoder& coder, std::uint64_t nonzero, std::size_t largest,
                                     bool by_row) const {
        const std::vector<std::int32_t> odds = by_row ? row_odds(coder, nonzero) : std::vector<std::int32_t>(rows_, 0);
        const std::size_t size = rows_ * columns_;
        const Bytes plane = nonzero >= size ? Bytes(size, 1) : flags(coder, nonzero, odds);
        std::vector<std::int32_t> found(plane.begin(), plane.end());
        Magnitudes(coder, columns_, largest).read(found, row_kinds(plane));
        return found;
    }

    // In how many steps the rows are taken.
    std::size_t strides() const {
        const std::size_t count = rows_ * columns_, steps = count > (1U << 19) ? 64 : 256;
        const std::size_t at_once = std::min<std::size_t>(std::max<std::size_t>(count / steps, 48), 16384);
        return std::max<std::size_t>(rows_ / std::max<std::size_t>(at_once * taps_ / columns_, 1), 1);
    }

    // The row at the distance before each one; `rows_` where there is none.
    std::vector<std::size_t> alike() const {
        std::vector<std::size_t> found(rows_, rows_);
        std::size_t other = 0;
        for (std::size_t row = 0; row < rows_; ++row) {
            while (places_[other] + distance_ < places_[row]) ++other;
            if (places_[other] + distance_ == places_[row]) found[row] = other;
        }
        return found;
    }

    // Where the matrix is not zero [rows, columns].
    Bytes flags(RangeDecoder& coder, std::uint64_t nonzero, const std::vector<std::int32_t>& rows) const {
        Bytes found((rows_ + 1) * columns_, 0);  // and a row of zeros, for those that are missing
        const std::size_t stride = strides(), kernels = columns_ / taps_;
        const std::vector<std::size_t> before = distance_ ? alike() : std::vector<std::size_t>();
        std::vector<std::int64_t> others(columns_, 0);
        std::vector<std::int32_t> odds(columns_);
        Bytes states, known;
        Contexts contexts;
        std::int64_t seen = 0;
        for (std::size_t step = 0; step < stride; ++step) {
            const std::size_t block = (rows_ - step + stride - 1) / stride;
            set_column_odds(odds, others, seen, nonzero);
            states.assign(block * columns_, 0);
            known.assign(block * kernels, 0);
            for (std::size_t i = 0; i < block; ++i) {
                const std::size_t row = step + i * stride;
                std::uint8_t* state = &states[i * columns_];
                if (step) add_above(state, &found[(row - 1) * columns_]);
                if (!distance_) continue;
                const std::uint8_t* other = &found[before[row] * columns_];
                for (std::size_t at = 0; at < columns_; ++at) {
                    state[at] = static_cast<std::uint8_t>(state[at] + 8 * other[at]);
                }
            }
            for (std::size_t tap = 0; tap < taps_; ++tap) {
                for (std::size_t i = 0; i < block; ++i) {
                    const std::size_t row = step + i * stride;
                    std::uint8_t* line = &found[row * columns_];
                    for (std::size_t kernel = 0; kernel < kernels; ++kernel) {
                        const std::size_t at = kernel * taps_ + tap;
                        const std::int32_t level = std::clamp(eighth(odds[at] + rows[row]) + 26, 0, int{levels} - 1);
                        std::uint8_t& told = known[i * kernels + kernel];
                        const std::size_t state = states[i * columns_ + at] + std::min<std::size_t>(told, 3);
                        const unsigned flag = contexts.read(coder, static_cast<std::size_t>(level) * near + state);
                        line[at] = static_cast<std::uint8_t>(flag);
                        told = static_cast<std::uint8_t>(told + flag);
                        others[at] += flag;
                    }
                }
                contexts.count();
            }
            seen += static_cast<std::int64_t>(block);
        }
        found.resize(rows_ * columns_);
        return found;
    }

    // An eighth, rounded down.
    static std::int32_t eighth(std::int32_t number) { return number >= 0 ? number / 8 : -((7 - number) / 8); }

    // Counts of zeros and others under each level of predicted odds and each state of the neighbours.
    class Contexts {
    public:
        Contexts() : counts_(levels * near), fresh_(levels * near), limits_(levels * near) {
            for (std::size_t level = 0; level < levels; ++level) {
                const std::uint64_t odds = Logs::root_above(static_cast<unsigned>(48 + 8 * level));
                const std::uint64_t others = 12 * 32 * odds / (odds + 65536), zeros = 12 * 32 - others;
                for (std::size_t state = 0; state < near; ++state) {
                    const std::size_t context = level * near + state;
                    counts_[context] = {std::max<std::uint64_t>(zeros, 1), std::max<std::uint64_t>(others, 1)};
                    fresh_[context] = {0, 0};
                    set_limit(context);
                }
            }
        }

        unsigned read(RangeDecoder& coder, std::size_t context) {
            const unsigned flag = coder.flag(limits_[context]);
            auto& fresh = fresh_[context];
            if (!(fresh[0] | fresh[1])) touched_.push_back(context);
            ++fresh[flag];
            return flag;
        }

        // Count what came true.
        void count() {
            for (const std::size_t context : touched_) {
                for (std::size_t flag : {0, 1}) {
                    counts_[context][flag] += unit * std::exchange(fresh_[context][flag], 0);
                }
                set_limit(context);
            }
            touched_.clear();
        }

    private:
        void set_limit(std::size_t context) {
            const auto [zeros, others] = counts_[context];
            const std::uint64_t part = std::clamp<std::uint64_t>(others * 65536 / (zeros + others), 1, 65535);
            limits_[context] = RangeDecoder::limit_of(static_cast<std::uint32_t>(part));
        }

        std::vector<std::array<std::uint64_t, 2>> counts_, fresh_;
        std::vector<std::uint32_t> limits_;
        std::vector<std::size_t> touched_;
    };

    // 16 log2 of the odds [columns] of a number other than zero, drawn to the rate of the whole where few were seen.
    void set_column_odds(std::vector<std::int32_t>& odds, const std::vector<std::int64_t>& others, std::int64_t seen,
                         std::uint64_t nonzero) const {
        const auto& logs = Logs::table();
        const auto drawn = static_cast<std::int64_t>(unit * prior * nonzero / (rows_ * columns_));
        const int shift = std::max(static_cast<int>(bit_length(static_cast<std::uint64_t>(seen + prior))) - 11, 0);
        for (std::size_t column = 0; column < columns_; ++column) {
            const std::int64_t zeros = (unit * (seen - others[column]) + unit * prior - drawn) >> shift;
            const std::int64_t ones = (unit * others[column] + drawn) >> shift;
            odds[column] = logs[static_cast<std::size_t>(ones + 1)] - logs[static_cast<std::size_t>(zeros + 1)];
        }
    }

    // Add the state of the row above: a number there, and, but for kernels, beside it.
    void add_above(std::uint8_t* state, const std::uint8_t* above) const {
        const int here = taps_ > 1 ? 4 : 3;
        for (std::size_t at = 0; at < columns_; ++at) {
            int sum = here * above[at];
            if (taps_ == 1) sum += (at ? above[at - 1] : 0) + (at + 1 < columns_ ? above[at + 1] : 0);
            state[at] = static_cast<std::uint8_t>(sum);
        }
    }

    // Whether a row has fewer numbers other than zero than most, as many, or more: 0, 1, 2.
    Bytes row_kinds(const Bytes& plane) const {
        std::vector<std::int64_t> counts(rows_, 0);
        std::int64_t sum = 0;
        for (std::size_t row = 0; row < rows_; ++row) {
            for (std::size_t at = 0; at < columns_; ++at) counts[row] += plane[row * columns_ + at];
            sum += counts[row];
        }
        Bytes kinds(rows_);
        for (std::size_t row = 0; row < rows_; ++row) {
            const std::int64_t scaled = 4 * static_cast<std::int64_t>(rows_) * counts[row];
            kinds[row] = static_cast<std::uint8_t>((scaled > 3 * sum) + (scaled > 5 * sum));
        }
        return kinds;
    }

    // How far each row's odds lie from the usual ones, in sixteenths of an octave, from its rounded count.
    std::vector<std::int32_t> row_odds(RangeDecoder& coder, std::uint64_t nonzero) const {
        const auto& logs = Logs::table();
        const std::uint64_t size = rows_ * columns_;
        const int shift = std::max(static_cast<int>(bit_length(columns_)) - 15, 0);
        const std::size_t scaled = columns_ >> shift, classes = static_cast<std::size_t>(logs[scaled]) / 4 + 1;
        std::vector<std::int64_t> seen(classes, 4), more(classes, 0);
        std::vector<std::size_t> read;
        read.reserve(rows_);
        while (read.size() < rows_) {
            coder.symbols(seen, std::min<std::size_t>(16, rows_ - read.size()), [&](std::size_t kind) {
                read.push_back(kind);
                more[kind] += 16;
            });
            for (std::size_t kind = 0; kind < classes; ++kind) seen[kind] += std::exchange(more[kind], 0);
        }
        const int down = std::max(static_cast<int>(bit_length(size)) - 14, 0);
        const std::int32_t usual = logs[static_cast<std::size_t>(2 * nonzero >> down) + 1] -
                                   logs[static_cast<std::size_t>(2 * (size - nonzero) >> down) + 1];
        std::vector<std::int32_t> odds(classes), found(rows_);
        std::size_t middle = 0;
        for (std::size_t kind = 0; kind < classes; ++kind) {
            while (static_cast<std::size_t>(logs[middle]) / 4 < kind) ++middle;
            odds[kind] = logs[2 * middle + 1] - logs[2 * (scaled - middle) + 1] - usual;
        }
        for (std::size_t row = 0; row < rows_; ++row) found[row] = odds[read[row]];
        return found;
    }

    std::vector<std::size_t> places_;  // of the rows in the matrix with those that are all zero
    std::size_t rows_, columns_, taps_, distance_ = 0;
};

// Sparse whole numbers: gaps and codes, Huffman-coded (Han et al. 2016, arXiv 1510.00149).
class Huffman {
public:
    static std::vector<std::int32_t> read(Reader source, std::size_t count) {
        const unsigned gap_bits = static_cast<unsigned>(source.varint(8));
        const std::size_t entries = static_cast<std::size_t>(source.varint(8 * std::uint64_t{source.left()}));
        const std::uint64_t most = std::min<std::uint64_t>(65536, source.left());
        const std::size_t kinds = static_cast<std::size_t>(source.varint(most));
        std::vector<std::int64_t> symbols(kinds);
        std::int64_t symbol = 0;
        for (std::int64_t& found : symbols) {
            const auto step = static_cast<std::int64_t>(source.varint(std::uint64_t{1} << 33));
            found = symbol += step & 1 ? -(step + 1) / 2 : step / 2;
            if (std::max(found, -found) >> 31) throw Error("one of its numbers has more than 31 bits");
        }
        const Huffman codes(source, kinds), gaps(source, std::size_t{1} << gap_bits);
        const Reader stream = source.part(source.varint());
        std::vector<std::int32_t> found(count, 0);
        Bits code_bits(stream), gap_bit(source);
        std::size_t place = 0;
        for (std::size_t done = 0; done < entries; ++done) {
            const std::int64_t number = symbols[codes.next(code_bits)];
            place += gaps.next(gap_bit);
            if (place >= count) throw Error("its gaps lead beyond its last place");
            found[place++] = static_cast<std::int32_t>(number);
        }
        return found;
    }

private:
    static constexpr unsigned most_length = 15;

    struct Bits {
        explicit Bits(Reader source) : data(source.here()), size(8 * source.left()) {}

        // The next fifteen bits; those beyond the end are zeros.
        std::uint32_t window() const {
            if (at >= size) throw Error("its codes end early");
            std::uint32_t wide = 0;
            for (std::size_t place = 0; place < 3; ++place) {
                const std::size_t byte = at / 8 + place;
                wide = wide << 8 | (byte < size / 8 ? data[byte] : 0U);
            }
            return wide >> (24 - most_length - at % 8) & ((1U << most_length) - 1);
        }

        const std::uint8_t* data;
        std::size_t size, at = 0;
    };

    // Lengths, four bits each, and the canonical code of them.
    Huffman(Reader& source, std::size_t kinds) : symbols_(1U << most_length, 0), steps_(1U << most_length, 0) {
        const std::uint8_t* packed = source.take((kinds + 1) / 2);
        std::size_t start = 0;
        for (unsigned length = 1; length <= most_length; ++length) {
            for (std::size_t symbol = 0; symbol < kinds; ++symbol) {
                if ((packed[symbol / 2] >> (symbol % 2 * 4) & 15U) != length) continue;
                const std::size_t end = start + (std::size_t{1} << (most_length - length));
                if (end > steps_.size()) throw Error("no Huffman code has the lengths that it names");
                for (; start < end; ++start) {
                    symbols_[start] = static_cast<std::uint16_t>(symbol);
                    steps_[start] = static_cast<std::uint8_t>(length);
                }
            }
        }
    }

    std::size_t next(Bits& bits) const {
        const std::uint32_t window = bits.window();
        if (!steps_[window]) throw Error("a code is none of its table");
        bits.at += steps_[window];
        return symbols_[window];
    }

    std::vector<std::uint16_t> symbols_;
    std::vector<std::uint8_t> steps_;
};

inline float float_of(std::uint32_t bits) {
    float found;
    std::memcpy(&found, &bits, 4);
    return found;
}

inline std::uint32_t bits_of(float number) {
    std::uint32_t found;
    std::memcpy(&found, &number, 4);
    return found;
}

inline void put(std::uint8_t* to, std::uint64_t word, unsigned size) {
    for (unsigned place = 0; place < size; ++place) to[place] = static_cast<std::uint8_t>(word >> (8 * place));
}

// A float32 as the nearest float16, to even where two are as near.
inline std::uint16_t half_of(std::uint32_t bits) {
    const std::uint32_t sign = bits >> 16 & 0x8000U, size = bits & 0x7FFFFFFFU;
    if (size > 0x7F800000U) return static_cast<std::uint16_t>(sign | 0x7E00U);
    if (size >= 0x477FF000U) return static_cast<std::uint16_t>(sign | 0x7C00U);  // 65520 and more
    const unsigned exponent = size >> 23;
    const bool normal = exponent >= 113;  // 2^-14 and more
    const unsigned shift = normal ? 13 : std::min(126 - exponent, 31U);
    const std::uint32_t whole = normal ? size - (112U << 23) : (size & 0x7FFFFFU) | (exponent ? 0x800000U : 0U);
    const std::uint32_t rest = whole & ((1U << shift) - 1), middle = 1U << (shift - 1);
    std::uint32_t found = whole >> shift;
    if (rest > middle || (rest == middle && found & 1)) ++found;
    return static_cast<std::uint16_t>(sign | found);
}

struct Dtype {
    unsigned size;
    bool floats;
};
// float32, float64, float16, bfloat16, int64, int32, int16, int8, uint8, bool
constexpr std::array<Dtype, 10> dtypes{
    {{4, true}, {8, true}, {2, true}, {2, true},
     {8, false}, {4, false}, {2, false}, {1, false}, {1, false}, {1, false}}};
enum Form { raw, bytes, grid, codebook, sparse_grid, sparse_codebook, same, difference, masked, row_grids, hashed, forms };

struct Entry {
    unsigned form;
    Tensor like;  // without numbers
    std::size_t count;
    Reader data;
    std::uint32_t sum;  // the CRC-32 of its bytes
};

// One tensor's numbers from its bytes.
class Restored {
public:
    explicit Restored(const Entry& entry)
        : tensor(entry.like), form_(entry.form), count_(entry.count), source_(entry.data), kind_(dtypes[tensor.dtype]) {
        tensor.bytes.resize(count_ * kind_.size);
        if ((grid <= form_ && form_ <= sparse_codebook) || form_ == row_grids || form_ == hashed) {
            if (tensor.dtype) throw Error("its form is for float32, and it is of another kind");
        }
        switch (form_) {
            case raw: read_raw(); break;
            case bytes: write(planes(source_, kind_.size, count_, kind_.floats)); break;
            case grid: case sparse_grid: read_grid(); break;
            case codebook: case sparse_codebook: read_codebook(); break;
            case masked: read_masked(); break;
            case row_grids: read_row_grids(); break;
            case hashed: read_hashed(); break;
            default: throw Error("it is stored as what differs from a base, which this reader does not have");
        }
        const auto untrue = [](int octet) { return octet > 1; };
        if (tensor.dtype == dtypes.size() - 1 && std::any_of(tensor.bytes.begin(), tensor.bytes.end(), untrue)) {
            throw Error("a truth value is neither 0 nor 1");
        }
    }

    Tensor tensor;

private:
    void write(const std::vector<std::uint64_t>& words) {
        for (std::size_t at = 0; at < words.size(); ++at) put(&tensor.bytes[at * kind_.size], words[at], kind_.size);
    }

    void write(std::size_t at, float number) { put(&tensor.bytes[4 * at], bits_of(number), 4); }

    std::vector<std::int32_t> numbers(Reader source) const {
        if (!count_) return {};
        const bool sparse = form_ == sparse_grid || form_ == sparse_codebook;
        return sparse ? Huffman::read(source, count_) : Matrix::read(source, tensor.shape);
    }

    void read_raw() {
        if (source_.left() != tensor.bytes.size()) throw Error("it has not as many bytes as its numbers take");
        std::copy_n(source_.here(), source_.left(), tensor.bytes.begin());
    }

    void read_grid() {
        const double step = float_of(source_.word());
        tensor.numbers = numbers(source_);
        for (std::size_t at = 0; at < count_; ++at) write(at, static_cast<float>(tensor.numbers[at] * step));
    }

    void read_row_grids() {
        if (tensor.shape.size() < 2) throw Error("its form is for rows, and it has none");
        const std::uint64_t length = source_.varint();
        const std::size_t rows = count_ ? static_cast<std::size_t>(tensor.shape[0]) : 0;
        const std::vector<std::uint64_t> steps = planes(source_.part(length), 4, rows, true);
        tensor.numbers = numbers(source_);
        for (std::size_t at = 0; at < count_; ++at) {
            const double step = float_of(static_cast<std::uint32_t>(steps[at / (count_ / rows)]));
            write(at, static_cast<float>(tensor.numbers[at] * step));
        }
    }

    void read_codebook() {
        const std::size_t size = static_cast<std::size_t>(source_.varint(4096));
        const auto zero = static_cast<std::int64_t>(source_.varint(4096));
        const std::uint64_t length = source_.varint();
        const std::vector<std::uint64_t> table = planes(source_.part(length), 4, size, true);
        const std::vector<std::int32_t> found = numbers(source_);
        for (std::size_t at = 0; at < count_; ++at) {
            const std::int64_t place = found[at] + zero;
            if (place < 0 || place >= static_cast<std::int64_t>(size)) throw Error("it names a value beyond its table");
            put(&tensor.bytes[4 * at], table[static_cast<std::size_t>(place)], 4);
        }
    }

    void read_hashed() {
        const std::size_t size = static_cast<std::size_t>(source_.varint(std::min<std::uint64_t>(count_, most_hashed)));
        const std::uint64_t start = source_.varint(most_hashed) * 0x9E3779B97F4A7C15U;
        if (count_ && !size) throw Error("it has no values for its numbers");
        const std::vector<std::uint64_t> table = planes(source_, 4, size, true);
        for (std::size_t at = 0; at < count_; ++at) {
            std::uint64_t mixed = start + at;
            mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9U;
            mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EBU;
            mixed ^= mixed >> 31;
            put(&tensor.bytes[4 * at], table[static_cast<std::size_t>((mixed >> 32) * size >> 32)], 4);
        }
    }

    void read_masked() {
        if (!kind_.floats) throw Error("its form is for floats, and it is of another kind");
        const std::uint64_t length = source_.varint();
        const std::vector<std::int32_t> signs = numbers(source_.part(length));
        const std::size_t some = count_ - static_cast<std::size_t>(std::count(signs.begin(), signs.end(), 0));
        const std::vector<std::uint64_t> words = planes(source_, kind_.size, some, true);
        std::size_t next = 0;
        for (std::size_t at = 0; at < count_; ++at) {
            if (signs[at] < -1 || signs[at] > 1) throw Error("a sign is neither 1 nor -1");
            if (!signs[at]) continue;
            const std::uint64_t sign = signs[at] < 0 ? std::uint64_t{1} << (8 * kind_.size - 1) : 0;
            put(&tensor.bytes[at * kind_.size], words[next++] | sign, kind_.size);
        }
    }

    unsigned form_;
    std::size_t count_;
    Reader source_;
    Dtype kind_;
};

}  // namespace detail

// A packed file whose bytes outlive it. The tensors have the order of its table; the graph is not read.
class File {
public:
    explicit File(const Bytes& data) {
        using namespace detail;
        Reader source(data.data(), data.size());
        if (data.size() < 16 || std::memcmp(source.take(3), "SWZ", 3) != 0) throw Error("it is not a packed net");
        if (source.byte() != 1) throw Error("its version is unknown to this reader");
        const std::uint64_t graph = source.word(), table = source.word();
        const std::uint32_t sum = source.word();
        Reader head = source.part(graph + table);
        if (crc32(head.here(), head.left()) != sum) throw Error("the checksum of its header is another");
        head.take(graph);
        std::uint64_t every = 0;
        while (head.left()) {
            entries_.push_back(entry(head, source));
            every += entries_.back().count;
            if (every > (std::uint64_t{1} << 24) + 4096 * std::uint64_t{data.size()}) {
                throw Error("it claims more numbers than its size allows");
            }
        }
    }

    // How many tensors it has.
    std::size_t size() const { return entries_.size(); }

    // How many numbers tensor `place` has.
    std::size_t count(std::size_t place) const { return entries_.at(place).count; }

    // Read tensor `place`, to the bit.
    Tensor tensor(std::size_t place) const {
        try {
            const detail::Entry& one = entries_.at(place);
            if (detail::crc32(one.data.here(), one.data.left()) != one.sum) throw Error("its checksum is another");
            return detail::Restored(one).tensor;
        } catch (const Error& error) {
            throw Error("tensor " + std::to_string(place) + " cannot be read: " + error.what());
        }
    }

private:
    static detail::Entry entry(detail::Reader& head, detail::Reader& source) {
        using namespace detail;
        const unsigned kinds = head.byte(), form = kinds >> 4, dtype = kinds & 15;
        if (form >= forms || dtype >= dtypes.size()) throw Error("a tensor has an unknown form or dtype");
        Tensor like;
        like.dtype = dtype;
        like.shape.resize(static_cast<std::size_t>(head.varint(most_rank)));
        for (std::uint64_t& length : like.shape) length = head.varint(std::uint64_t{1} << 32);
        const bool empty = std::count(like.shape.begin(), like.shape.end(), 0U) > 0;
        std::uint64_t count = empty ? 0 : 1;
        for (const std::uint64_t length : like.shape) {
            if (count && length > (std::uint64_t{1} << 40) / count) throw Error("a tensor claims too many numbers");
            count *= length;
        }
        const std::uint64_t size = head.varint();
        const std::uint32_t sum = head.word();
        return {form, std::move(like), static_cast<std::size_t>(count), source.part(size), sum};
    }

    std::vector<detail::Entry> entries_;
};

namespace detail {

// What a span of a runtime's file is made of a tensor: its bytes, its float32 rounded to float16, or the whole numbers
// behind its floats as int8.
enum As { as_it_is, as_float16, as_int8, ways };

inline Bytes numbers_as(const Tensor& tensor, unsigned as, unsigned& size) {
    size = as == as_it_is ? dtypes[tensor.dtype].size : as == as_float16 ? 2 : 1;
    if (as == as_it_is) return tensor.bytes;
    Bytes made;
    if (as == as_float16) {
        if (tensor.dtype) throw Error("float16 is rounded from float32, and the tensor is of another kind");
        made.resize(tensor.bytes.size() / 2);
        Reader source(tensor.bytes.data(), tensor.bytes.size());
        for (std::size_t at = 0; at < made.size(); at += 2) put(&made[at], half_of(source.word()), 2);
    } else {
        if (4 * tensor.numbers.size() != tensor.bytes.size()) throw Error("a tensor has no whole numbers");
        for (const std::int32_t number : tensor.numbers) {
            if (number < -128 || number > 127) throw Error("a whole number takes more than eight bits");
            made.push_back(static_cast<std::uint8_t>(number));
        }
    }
    return made;
}

// Numbers of `size` bytes each, with axis k of the result being axis `axes[k]` of the tensor.
inline Bytes permuted(const Bytes& numbers, unsigned size, const std::vector<std::uint64_t>& shape,
                      const std::vector<std::size_t>& axes) {
    std::vector<std::size_t> strides(shape.size(), size);
    for (std::size_t axis = shape.size(); axis-- > 1;) {
        strides[axis - 1] = strides[axis] * static_cast<std::size_t>(shape[axis]);
    }
    Bytes made(numbers.size());
    std::vector<std::uint64_t> place(shape.size(), 0);
    std::size_t from = 0;
    for (std::size_t at = 0; at < made.size(); at += size) {
        std::copy_n(&numbers[from], size, &made[at]);
        for (std::size_t k = axes.size(); k-- > 0;) {
            from += strides[axes[k]];
            if (++place[k] < shape[axes[k]]) break;
            from -= strides[axes[k]] * static_cast<std::size_t>(std::exchange(place[k], 0));
        }
    }
    return made;
}

}  // namespace detail

// The runtime's file that a skeleton was cut out of, with the weights of a packed file. Its SHA-256 is compared.
inline Bytes unpacked(const Bytes& skeleton, const Bytes& weights) {
    using namespace detail;
    const File file(weights);
    Reader source(skeleton.data(), skeleton.size());
    if (skeleton.size() < 36 || std::memcmp(source.take(3), "SWK", 3) != 0) throw Error("it is not a skeleton");
    if (source.byte() != 1) throw Error("the skeleton's version is unknown to this reader");
    const std::uint8_t* digest = source.take(32);
    struct Span {
        std::uint64_t before;
        std::size_t tensor;
        unsigned as;
        std::vector<std::size_t> axes;
    };
    std::vector<Span> spans(static_cast<std::size_t>(source.varint(file.size())));
    std::vector<bool> used(file.size(), false);
    for (Span& span : spans) {
        span.before = source.varint();
        span.tensor = static_cast<std::size_t>(source.varint(file.size() - 1));
        if (used[span.tensor]) throw Error("the skeleton names a tensor twice");
        used[span.tensor] = true;
        span.as = source.byte();
        if (span.as >= ways) throw Error("the skeleton names an unknown way to write a tensor");
        span.axes.resize(static_cast<std::size_t>(source.varint(most_rank)));
        std::array<bool, most_rank> known{};
        for (std::size_t& axis : span.axes) {
            axis = static_cast<std::size_t>(source.varint(span.axes.size() - 1));
            if (std::exchange(known[axis], true)) throw Error("the skeleton names an axis twice");
        }
    }
    Bytes made;
    const auto copy = [&](std::uint64_t count) {
        const std::uint8_t* found = source.take(count);
        made.insert(made.end(), found, found + count);
    };
    for (const Span& span : spans) {
        copy(span.before);
        const Tensor tensor = file.tensor(span.tensor);
        unsigned size = 0;
        Bytes numbers = numbers_as(tensor, span.as, size);
        if (!span.axes.empty()) {
            if (span.axes.size() != tensor.shape.size()) throw Error("the skeleton names other axes than a tensor has");
            numbers = permuted(numbers, size, tensor.shape, span.axes);
        }
        made.insert(made.end(), numbers.begin(), numbers.end());
    }
    copy(source.left());
    const auto found = sha256(made);
    if (!std::equal(found.begin(), found.end(), digest)) {
        throw Error("the weights are not those of the skeleton: the SHA-256 of the result is another");
    }
    return made;
}

}  // namespace swz
