// Writes the runtime's file that a skeleton and a packed net stand for:
//
//     swz_unpack model.skeleton weights.swz model.onnx
//     swz_unpack weights.swz numbers.bin    # the numbers of all tensors, in the order of the file's table
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>

#include "swz.hpp"

namespace {

swz::Bytes read(const char* path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw swz::Error(std::string(path) + " cannot be read");
    return swz::Bytes(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

void write(const char* path, const swz::Bytes& data) {
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(data.data()), static_cast<std::streamsize>(data.size()));
    file.close();
    if (!file) throw swz::Error(std::string(path) + " cannot be written");
}

swz::Bytes numbers(const swz::Bytes& packed) {
    const swz::File file(packed);
    swz::Bytes made;
    for (std::size_t place = 0; place < file.size(); ++place) {
        const swz::Bytes found = file.tensor(place).bytes;
        made.insert(made.end(), found.begin(), found.end());
    }
    return made;
}

}  // namespace

int main(int count, char** given) {
    try {
        if (count == 4) {
            write(given[3], swz::unpacked(read(given[1]), read(given[2])));
        } else if (count == 3) {
            write(given[2], numbers(read(given[1])));
        } else {
            throw swz::Error("usage: swz_unpack model.skeleton weights.swz out, or swz_unpack weights.swz out");
        }
    } catch (const std::exception& error) {
        std::cerr << "swz_unpack: " << error.what() << '\n';
        return 1;
    }
    return 0;
}
