// llama.cpp's program that embeds the web pages, with string literals for its lists of numbers.
//
// The compiler takes 25 times as long for the lists: 26 against 1 CPU seconds in the same minutes, and 1570 against
// 130 MiB. Both give the same object. A literal fills its array without a NUL after it, which only -fpermissive allows.

#define main write_lists
#include "embed.cpp"
#undef main

#include <iterator>

static int digit(char c) {
    return c < 'a' ? c - '0' : c - 'a' + 10;
}

// Adds the literal for a list "0x4c,0x6f,…" to `out`, and returns how many bytes it has.
static size_t append_literal(std::string & out, const char * list, const char * end) {
    size_t count = 0;
    for (; list < end; list += 5, count++) {
        const int byte = digit(list[2]) << 4 | digit(list[3]);
        if (byte >= ' ' && byte <= '~' && byte != '"' && byte != '\\' && byte != '?') {
            out += static_cast<char>(byte);
        } else {
            out += { '\\', static_cast<char>('0' + (byte >> 6)), static_cast<char>('0' + (byte >> 3 & 7)),
                     static_cast<char>('0' + (byte & 7)) };
        }
    }
    return count;
}

int main(int argc, char ** argv) {
    if (argc < 3) {
        return write_lists(argc, argv);
    }
    const std::string out = argv[1];
    std::string lists = out + ".lists";
    argv[1] = &lists[0];
    if (const int status = write_lists(argc, argv)) {
        return status;
    }
    std::ifstream file(lists, std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    file.close();
    std::filesystem::remove(lists);

    static const std::string before = "[] = {0x", after = "};";
    std::string written;
    size_t at = 0;
    for (size_t found; (found = text.find(before, at)) != std::string::npos;) {
        const size_t start = found + before.size() - 2, end = text.find(after, start);
        std::string literal;
        const size_t count = append_literal(literal, &text[start], &text[end]);
        written += text.substr(at, found - at) + "[" + std::to_string(count) + "] = {\"" + literal + "\"};";
        at = end + after.size();
    }
    return write_if_different(out, written + text.substr(at)) ? 0 : 1;
}
