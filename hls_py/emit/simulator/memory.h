// The board's memory: bytes from address 0, given by the system as they are touched.
#pragma once
#include <sys/mman.h>

#include <cstdint>
#include <cstring>

class Memory {
  public:
    explicit Memory(uint64_t bytes) : bytes_(bytes) {
        void* got = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        data_ = got == MAP_FAILED ? nullptr : static_cast<uint8_t*>(got);
    }
    ~Memory() {
        if (data_) munmap(data_, bytes_);
    }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    uint8_t* data() const { return data_; }
    bool holds(uint64_t address, uint64_t count) const { return count <= bytes_ && address <= bytes_ - count; }

    // Write the bytes whose strobe bit is set; a word of all strobes is one copy.
    template <unsigned kBytes>
    void write(uint64_t address, const uint8_t* word, const uint8_t* strobe) {
        static constexpr unsigned kStrobeBytes = (kBytes + 7) / 8;
        bool all = true;
        for (unsigned i = 0; i < kStrobeBytes; ++i) all &= strobe[i] == (kBytes < 8 ? (1u << kBytes) - 1 : 0xFFu);
        if (all) {
            std::memcpy(data_ + address, word, kBytes);
            return;
        }
        for (unsigned i = 0; i < kBytes; ++i)
            if (strobe[i / 8] >> i % 8 & 1) data_[address + i] = word[i];
    }

  private:
    uint64_t bytes_;
    uint8_t* data_;
};
